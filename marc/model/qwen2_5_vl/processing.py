"""Qwen2.5-VL's processor with compressed videos: a video is one run of placeholders, whose times are positions."""

from collections.abc import Sequence
from copy import copy
from typing import Any

from transformers import Qwen2_5_VLProcessor
from transformers.video_utils import is_valid_video, make_batched_metadata, make_batched_videos

from marc.compression.cells import Cells, token_count
from marc.model.processing import CompressedProcessor


class MarcProcessor(CompressedProcessor, Qwen2_5_VLProcessor):
    """Turns text, images and videos into inputs for `MarcForConditionalGeneration`."""

    def _sample(self, videos: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Samples as many frames as asked for: by itself the video processor takes 15 of 61 where 14 are wanted."""
        frames = make_batched_videos(videos)
        sampled = options.get("do_sample_frames", True)
        if not (options.get("num_frames") and sampled and is_valid_video(frames[0])):
            return videos, options
        metadata = list(map(copy, make_batched_metadata(frames, options.get("video_metadata"))))
        how = {name: options[name] for name in ("num_frames", "fps") if name in options}
        for index, known in enumerate(metadata):
            known.frames_indices = self.video_processor.sample_frames(known, **how)[: options["num_frames"]]
            frames[index] = frames[index][known.frames_indices]
        return frames, {**options, "video_metadata": metadata, "do_sample_frames": False}

    def video_text(self, cells: Sequence[Cells], seconds: Sequence[float] | None) -> str:
        """As many placeholders as visual tokens remain."""
        return self.video_token * sum(map(token_count, cells))
