"""How Qwen2.5-VL's vision tower is taken apart (`marc.model.tower`).

It attends within windows, and in some blocks within whole pictures; it puts patches into the order of windows and back
itself. So a part has the base class's own forward, over fewer blocks.
"""

from __future__ import annotations

from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel as Tower

from marc.model.tower import UnmergedCells, sharing


def tower_part(tower: Tower, start: int, stop: int) -> Tower:
    """Blocks ``start`` to ``stop`` of the tower as a tower of their own, see `marc.model.tower.CutTower`."""
    part = sharing(tower)
    part.blocks = tower.blocks[start:stop]
    part.fullatt_block_indexes = [index - start for index in tower.fullatt_block_indexes]
    if start > 0:
        part.patch_embed = nn.Identity()
    if stop < len(tower.blocks):
        part.merger = UnmergedCells(tower.spatial_merge_unit)
    return part
