"""Qwen2.5-VL in vLLM with compressed videos: placeholders, features and positions from the same plan."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
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
from marc.model.qwen2_5_vl.vision import tower_part
from marc.serving.vllm.processing import ReadingInfo, ReadingProcessor, grid_of
from marc.serving.vllm.tower import as_transformers, encode_video, manners

Tower = manners(Qwen2_5_VisionTransformer)


class Info(ReadingInfo, Qwen2_5_VLProcessingInfo):
    """What the processor knows of the model."""


class Processor(ReadingProcessor, Qwen2_5_VLMultiModalProcessor):
    """Reads, plans and counts videos."""


class PlannedVideos(NamedTuple):
    """Videos of a batch as they reach the model.

    Attributes:
        pixels: Patches of all.
        grids: Of each.
        plans: Of each, its `marc.inference.plan_record.PlanRecord`.
    """

    pixels: Tensor
    grids: Tensor
    plans: Sequence[Tensor]


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=Qwen2_5_VLDummyInputsBuilder)
class ServedMarc(Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL for compressed videos."""

    supports_mm_device_do_normalize = False  # frames are compared, and merged, as the processor normalises them

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        if self.is_multimodal_pruning_enabled:
            raise ValueError("--video-pruning-rate: videos are compressed by their plans already; leave it out")

    def get_encoder_cudagraph_config(self) -> Any:
        """Only pictures are encoded as a captured graph: what merges depends on the video."""
        config = super().get_encoder_cudagraph_config()
        config.modalities = ["image"]
        return config

    @cached_property
    def _tower(self) -> Any:
        return as_transformers(self.visual, Tower)

    def _parse_and_validate_video_input(self, **kwargs: Any) -> PlannedVideos | None:
        pixels, grid = VISUAL_FIELDS["video"]
        return PlannedVideos(kwargs[pixels], kwargs[grid], kwargs[PLAN]) if pixels in kwargs else None

    def _process_video_input(self, video_input: Any) -> tuple[Tensor, ...]:
        videos: PlannedVideos = video_input
        pixels = videos.pixels.split(videos.grids.prod(1).tolist())
        planned = [grid_of(grid, plan, self.config) for grid, plan in zip(videos.grids, videos.plans, strict=True)]
        return tuple(
            encode_video(self._tower, tower_part, own, grid, record)
            for own, (grid, record) in zip(pixels, planned, strict=True)
        )

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """Positions ``int64 [3, L]`` of a prompt, and the offset of later tokens' positions from their index."""
        parts, begun, position = [], 0, 0
        text_after: TextAfter = getattr(self.config, "text_after_video", "published")
        for feature in sorted(mm_features, key=lambda each: each.mm_position.offset):
            text = feature.mm_position.offset - begun
            own, size = self._positions(feature)
            parts += [torch.arange(text).expand(3, -1) + position, own + position + text]
            position += text + text_position(own, size, text_after)
            begun = feature.mm_position.offset + own.shape[1]
        parts.append(torch.arange(len(input_tokens) - begun).expand(3, -1) + position)
        positions = torch.cat(parts, dim=1)
        last = positions.max() if text_after == "published" else positions[0, -1]
        return positions, int(last) + 1 - len(input_tokens)

    def _positions(self, feature: Any) -> tuple[Tensor, tuple[int, int]]:
        """Positions of a video or picture relative to its first token's, and the size of its grids."""
        vision, kind = self.config.vision_config, feature.modality
        grid_thw = feature.data[VISUAL_FIELDS[kind][1]].data
        if kind == "image":
            grids, height, width = grid_thw.tolist()
            size = (height // vision.spatial_merge_size, width // vision.spatial_merge_size)
            return video_positions(VideoPlan.whole(grids, size), 1.0, tokens_per_second=1), size
        grid, record = grid_of(grid_thw, feature.data[PLAN].data, self.config)
        plan = grid.plan_in_cells(vision.spatial_merge_size)
        return video_positions(plan, record.seconds, tokens_per_second=vision.tokens_per_second), plan.size
