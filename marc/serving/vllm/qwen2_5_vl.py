"""Qwen2.5-VL in vLLM with compressed videos, whose temporal positions count seconds."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VisionTransformer,
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from marc.compression.plan import VideoPlan
from marc.compression.positions import TextAfter, text_position, video_positions
from marc.inference.vllm_items import PLAN, VISUAL_FIELDS
from marc.serving.vllm.model import PlansVideos, Shown, in_order, prompt_positions
from marc.serving.vllm.processing import ReadingInfo, ReadingProcessor, grid_of
from marc.serving.vllm.tower import manners


class Info(ReadingInfo, Qwen2_5_VLProcessingInfo):
    """What the processor knows of the model."""


class Processor(ReadingProcessor, Qwen2_5_VLMultiModalProcessor):
    """Reads, plans and counts videos."""


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=Qwen2_5_VLDummyInputsBuilder)
class ServedMarc(PlansVideos, Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL for compressed videos."""

    tower_kind = manners(Qwen2_5_VisionTransformer)

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """Positions ``int64 [3, L]`` of a prompt, and the offset of later tokens' positions from their index."""
        text_after: TextAfter = getattr(self.config, "text_after_video", "published")
        shown = [self._shown(feature, text_after) for feature in in_order(mm_features)]
        positions = prompt_positions(len(input_tokens), shown)
        last = positions.max() if text_after == "published" else positions[0, -1]
        return positions, int(last) + 1 - len(input_tokens)

    def _shown(self, feature: Any, text_after: TextAfter) -> Shown:
        vision, offset = self.config.vision_config, feature.mm_position.offset
        if feature.modality == "image":
            size = self._picture_size(feature)
            own = video_positions(VideoPlan.whole(1, size), 0.0, tokens_per_second=1)
        else:
            grid, record = grid_of(feature.data[VISUAL_FIELDS["video"][1]].data, feature.data[PLAN].data, self.config)
            plan = grid.plan_in_cells(vision.spatial_merge_size)
            size = plan.size
            own = video_positions(plan, record.seconds, tokens_per_second=vision.tokens_per_second)
        return Shown(offset, own, text_position(own, size, text_after))
