"""What the models of all families share in vLLM: videos are encoded, merged and numbered by their plans.

Shapes: L tokens of a prompt, N tokens of something shown in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from marc.inference.vllm_items import PLAN, VISUAL_FIELDS
from marc.model.family import find_family, load_name
from marc.serving.vllm.processing import grid_of
from marc.serving.vllm.tower import as_transformers, encode_video


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


class PlansVideos:
    """A model that reads planned videos; comes before vLLM's class of a family among the bases.

    Attributes:
        tower_kind: The tower's class, see `marc.serving.vllm.tower.manners`.
    """

    supports_mm_device_do_normalize = False  # frames are compared, and merged, as the processor normalises them
    tower_kind: type
    config: Any
    visual: Any

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        if getattr(self, "is_multimodal_pruning_enabled", False):
            raise ValueError("--video-pruning-rate: videos are compressed by their plans already; leave it out")

    def get_encoder_cudagraph_config(self) -> Any:
        """Only pictures are encoded as a captured graph: what merges depends on the video."""
        config = super().get_encoder_cudagraph_config()  # type: ignore[misc]
        config.modalities = ["image"]
        return config

    @cached_property
    def _tower(self) -> Any:
        return as_transformers(self.visual, self.tower_kind)

    def _parse_and_validate_video_input(self, **kwargs: Any) -> PlannedVideos | None:
        pixels, grid = VISUAL_FIELDS["video"]
        return PlannedVideos(kwargs[pixels], kwargs[grid], kwargs[PLAN]) if pixels in kwargs else None

    def _process_video_input(self, videos: PlannedVideos) -> tuple[Tensor, ...]:
        cut = load_name(find_family(self.config.model_type).tower_part)
        pixels = videos.pixels.split(videos.grids.prod(1).tolist())
        planned = [grid_of(grid, plan, self.config) for grid, plan in zip(videos.grids, videos.plans, strict=True)]
        return tuple(
            encode_video(self._tower, cut, own, grid, record)
            for own, (grid, record) in zip(pixels, planned, strict=True)
        )

    def _picture_size(self, feature: Any) -> tuple[int, int]:
        """Height and width of a picture in visual tokens."""
        _, height, width = feature.data[VISUAL_FIELDS["image"][1]].data.tolist()
        merge = self.config.vision_config.spatial_merge_size
        return height // merge, width // merge


class Shown(NamedTuple):
    """Something in a prompt that is numbered otherwise than text.

    Attributes:
        offset: Index of its first token.
        positions: Relative to that token's, ``int64 [3, N]``.
        advance: Where the text behind it goes on, likewise relative.
    """

    offset: int
    positions: Tensor
    advance: int


def prompt_positions(length: int, shown: Iterable[Shown]) -> Tensor:
    """M-RoPE positions of a prompt, ``int64 [3, L]``.

    Args:
        length: L.
        shown: In order.
    """
    parts, begun, position = [], 0, 0
    for each in shown:
        text = each.offset - begun
        parts += [torch.arange(text).expand(3, -1) + position, each.positions + position + text]
        position += text + each.advance
        begun = each.offset + each.positions.shape[1]
    parts.append(torch.arange(length - begun).expand(3, -1) + position)
    return torch.cat(parts, dim=1)


def in_order(mm_features: Iterable[Any]) -> list[Any]:
    """What a prompt shows, from its beginning to its end."""
    return sorted(mm_features, key=lambda each: each.mm_position.offset)
