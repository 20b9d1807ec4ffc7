"""Qwen2.5-VL's processor with compressed videos: a video is one run of placeholders, whose times are positions."""

from collections.abc import Sequence

from transformers import Qwen2_5_VLProcessor

from marc.compression.plan import Size
from marc.model.processing import CompressedProcessor


class MarcProcessor(CompressedProcessor, Qwen2_5_VLProcessor):
    """Turns text, images and videos into inputs for `MarcForConditionalGeneration`."""

    def video_text(self, cells: Sequence[Size], seconds: Sequence[float] | None) -> str:
        """As many placeholders as visual tokens remain."""
        return self.video_token * sum(height * width for height, width in cells)
