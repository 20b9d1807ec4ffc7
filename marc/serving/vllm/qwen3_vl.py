"""Qwen3-VL in vLLM with compressed videos: a block for each grid that remains, with its time in words; DeepStack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.qwen3_vl import (
    Qwen3_VisionTransformer,
    Qwen3VLDummyInputsBuilder,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMultiModalProcessor,
    Qwen3VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from marc.compression.cells import Cells, token_count
from marc.compression.positions import block_positions
from marc.inference.vllm_items import PLAN, VISUAL_FIELDS
from marc.model.qwen3_vl.vision import NoPositions
from marc.serving.vllm.model import PlansVideos, Shown, in_order, prompt_positions
from marc.serving.vllm.processing import ReadingInfo, ReadingProcessor, grid_of
from marc.serving.vllm.tower import manners


class Tower(manners(Qwen3_VisionTransformer)):  # type: ignore[misc]
    """vLLM's tower; a part of it that does not read pixels adds no table of positions."""

    def fast_pos_embed_interpolate(self, grid_thw: Any) -> Tensor:
        """Part of vLLM's tower."""
        if isinstance(self.pos_embed, NoPositions):
            return torch.zeros(1, device=self.device, dtype=self.dtype)
        positions: Tensor = super().fast_pos_embed_interpolate(grid_thw)
        return positions


class Info(ReadingInfo, Qwen3VLProcessingInfo):
    """What the processor knows of the model."""


class Processor(ReadingProcessor, Qwen3VLMultiModalProcessor):
    """Reads, plans and counts videos."""


class NumbersGrids(PlansVideos):
    """Each grid that remains of a video is numbered like a picture; comes first among the bases of a model."""

    tower_kind = Tower

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """Positions ``int64 [3, L]`` of a prompt, and the offset of later tokens' positions from their index."""
        shown = [
            Shown(offset, block_positions(cells), max(cells[:2]))
            for feature in in_order(mm_features)
            for offset, cells in self._blocks(feature, input_tokens)
        ]
        positions = prompt_positions(len(input_tokens), shown)
        return positions, int(positions.max()) + 1 - len(input_tokens)

    def _blocks(self, feature: Any, input_tokens: list[int]) -> Iterator[tuple[int, Cells]]:
        """Where each block begins, and how it is divided."""
        offset = feature.mm_position.offset
        if feature.modality == "image":
            yield offset, self._picture_size(feature)
            return
        grid, _ = grid_of(feature.data[VISUAL_FIELDS["video"][1]].data, feature.data[PLAN].data, self.config)
        for cells in grid.plan_in_cells(self.config.vision_config.spatial_merge_size).cells:
            offset = input_tokens.index(self.config.video_token_id, offset)
            yield offset, cells
            offset += token_count(cells)


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=Qwen3VLDummyInputsBuilder)
class ServedMarcQwen3VL(NumbersGrids, Qwen3VLForConditionalGeneration):
    """Qwen3-VL for compressed videos."""
