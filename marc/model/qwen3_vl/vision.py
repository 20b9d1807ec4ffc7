"""How Qwen3-VL's vision tower is taken apart (`marc.model.tower`).

It attends within a temporal grid, adds a learned table of positions to what it reads of the pixels, and hands on what
some of its blocks give (DeepStack). A part has the base class's own forward over fewer blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel as Tower

from marc.model.tower import UnmergedCells, sharing


class NoPositions(nn.Module):
    """In place of the table of positions, which the first part has added already."""

    def forward(self, places: Tensor) -> Tensor:
        """A feature of 0 for each place."""
        return torch.zeros(*places.shape, 1, device=places.device)


def tower_part(tower: Tower, start: int, stop: int) -> Tower:
    """Blocks ``start`` to ``stop`` of the tower as a tower of their own, see `marc.model.tower.CutTower`."""
    part = sharing(tower)
    part.blocks = tower.blocks[start:stop]
    taps = zip(tower.deepstack_visual_indexes, tower.deepstack_merger_list, strict=True)
    own = [(index - start, merger) for index, merger in taps if start <= index < stop]
    part.deepstack_visual_indexes = [index for index, _ in own]
    part.deepstack_merger_list = nn.ModuleList([merger for _, merger in own])
    if start > 0:
        part.patch_embed, part.pos_embed = nn.Identity(), NoPositions()
    if stop < len(tower.blocks):
        part.merger = UnmergedCells(tower.spatial_merge_unit)
    return part
