"""How Qwen3.5's vision tower is taken apart (`marc.model.tower`): Qwen3-VL's without DeepStack."""

from __future__ import annotations

from torch import nn
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5VisionModel as Tower

from marc.model.qwen3_vl.vision import NoPositions
from marc.model.tower import UnmergedCells, sharing


def tower_part(tower: Tower, start: int, stop: int) -> Tower:
    """Blocks ``start`` to ``stop`` of the tower as a tower of their own, see `marc.model.tower.CutTower`."""
    part = sharing(tower)
    part.blocks = tower.blocks[start:stop]
    if start > 0:
        part.patch_embed, part.pos_embed = nn.Identity(), NoPositions()
    if stop < len(tower.blocks):
        part.merger = UnmergedCells(tower.spatial_merge_unit)
    return part
