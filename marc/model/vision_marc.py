"""Merging frames inside the vision tower, whose later blocks then run on fewer frames.

Qwen2.5-VL's tower attends within a temporal grid only, and its positions are those within the picture, so a frame may
be replaced by an average of frames between any two blocks. The tower is run in parts, each part the base class's own
unmodified ``forward`` over some of its blocks: window order, lengths and rotary tables are thereby those of the
frames that are left, and with nothing merged the result is the stock tower's.

Shapes: T temporal grids, S frames that remain, P merged tokens ("cells") of a frame, X features of a cell's patches
side by side, D features of a token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from marc.model.compression import CompressedFrames, compress_planned
from marc.model.plan import VideoPlan


@dataclass(frozen=True)
class TowerFrames:
    """What the tower gives of one video after merging.

    Attributes:
        tokens: ``[S, P, D]``.
        members: ``int64 [T]``: the frame in which each temporal grid ended.
        sizes: ``[S]``: how many temporal grids each frame stands for.
    """

    tokens: Tensor
    members: Tensor
    sizes: Tensor


class SideBySide(nn.Module):
    """In place of the merger: puts the patches of each cell side by side, ``[N * unit, D] -> [N, unit * D]``."""

    def __init__(self, unit: int) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, patches: Tensor) -> Tensor:
        """Reshapes."""
        return patches.reshape(len(patches) // self.unit, -1)


def tower_part(tower: Qwen2_5_VisionTransformerPretrainedModel, start: int, stop: int) -> nn.Module:
    """Blocks ``start`` to ``stop`` of the tower as a tower of their own, sharing all weights.

    The first part reads pixels, the last one returns tokens; between parts travel the patches of each cell side by
    side, in raster order.
    """
    part = copy(tower)
    part._modules = dict(tower._modules)
    part.blocks = tower.blocks[start:stop]
    part.fullatt_block_indexes = [index - start for index in tower.fullatt_block_indexes]
    if start > 0:
        part.patch_embed = nn.Identity()
    if stop < len(tower.blocks):
        part.merger = SideBySide(tower.spatial_merge_unit)
    return part


def run_tower(
    tower: Qwen2_5_VisionTransformerPretrainedModel,
    pixels: Tensor,
    grids: Sequence[tuple[int, int, int]],
    plans: Sequence[VideoPlan],
) -> list[TowerFrames]:
    """Runs the tower over several videos and merges their frames on the way.

    Args:
        tower: Qwen2.5-VL's.
        pixels: As the processor makes them.
        grids: Temporal grids, height and width in patches of each video.
        plans: One per video, all with the same layers, or none.

    Raises:
        ValueError: If the tower has no such layer.
    """
    layers = [layer for layer, _ in plans[0].tower]
    if layers and layers[-1] >= len(tower.blocks):
        raise ValueError(
            f"compression.tower_layer {layers[-1]} is not inside the vision tower of {len(tower.blocks)} blocks"
        )
    frames = [grid[0] for grid in grids]
    members = [torch.arange(count, device=pixels.device) for count in frames]
    sizes = [torch.ones(count, device=pixels.device) for count in frames]
    hidden = pixels
    for stage, (start, stop) in enumerate(zip([0, *layers], [*layers, len(tower.blocks)], strict=True)):
        sizes_now = [[count, *grid[1:]] for count, grid in zip(frames, grids, strict=True)]
        grid_thw = torch.tensor(sizes_now, device=pixels.device)
        cells = tower_part(tower, start, stop)(hidden, grid_thw=grid_thw).pooler_output
        counts = [count * height * width // tower.spatial_merge_unit for count, height, width in sizes_now]
        videos_TPX = [part.unflatten(0, (count, -1)) for part, count in zip(cells.split(counts), frames, strict=True)]
        if stage == len(layers):
            break
        stage_plans = [plan.tower[stage][1] for plan in plans]
        merged = compress_videos(videos_TPX, stage_plans, sizes if stage > 0 else None)
        frames = [len(video.frames) for video in merged]
        members = [video.members[member] for video, member in zip(merged, members, strict=True)]
        sizes = [
            torch.zeros(count, device=pixels.device).index_add(0, member, torch.ones_like(member, dtype=torch.float))
            for count, member in zip(frames, members, strict=True)
        ]
        hidden = torch.cat([video.flat for video in merged]).reshape(-1, tower.config.hidden_size)
    return [TowerFrames(*video) for video in zip(videos_TPX, members, sizes, strict=True)]


def compress_videos(
    videos_TPX: Sequence[Tensor], plans: Sequence[VideoPlan], sizes: Sequence[Tensor] | None = None
) -> list[CompressedFrames]:
    """Carries out one plan per video; videos with equal plans go together.

    Args:
        videos_TPX: ``[T, P, X]`` each.
        plans: One per video.
        sizes: How many temporal grids each frame stands for, ``[T]`` each; ``None``: one.
    """
    together: dict[VideoPlan, list[int]] = defaultdict(list)
    for video, plan in enumerate(plans):
        together[plan].append(video)
    results: dict[int, CompressedFrames] = {}
    for plan, videos in together.items():
        tokens = torch.stack([videos_TPX[video] for video in videos])
        known = None if sizes is None else torch.stack([sizes[video] for video in videos])
        results.update(zip(videos, compress_planned(tokens, plan, sizes_BT=known), strict=True))
    return [results[video] for video in range(len(plans))]
