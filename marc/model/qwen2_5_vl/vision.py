"""How Qwen2.5-VL's vision tower is taken apart (`marc.model.tower`).

It attends within windows, and in some blocks within whole pictures; it puts patches into the order of windows and back
itself. So a part has the base class's own forward, over fewer blocks.

Shapes: N temporal grids, S patches of a grid, X numbers of a patch, P tokens of a grid, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel as Tower
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

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


def encode_grids(tower: Tower, patches_NSX: Tensor) -> Tensor:
    """The tower on N grids of equal, square size at once: tokens ``[N, P, D]``.

    Equal to the tower's own forward where every block has full attention, without its Python loop over the grids.
    """
    count, length, _ = patches_NSX.shape
    merge = tower.spatial_merge_size
    cell = torch.arange(length, device=patches_NSX.device)
    side = int((length // merge**2) ** 0.5)
    row = cell // merge**2 // side * merge + cell % merge**2 // merge
    column = cell // merge**2 % side * merge + cell % merge
    cos, sin = tower.rotary_pos_emb(patches_NSX, torch.stack((row, column), dim=1))
    weight = tower.patch_embed.proj.weight.flatten(1)
    hidden = F.linear(patches_NSX, weight)
    for block in tower.blocks:
        attention = block.attn
        query, key, value = (
            attention.qkv(block.norm1(hidden)).view(count, length, 3, attention.num_heads, -1).unbind(2)
        )
        query, key = apply_rotary_pos_emb_vision(query, key, cos, sin)
        mixed = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        hidden = hidden + attention.proj(mixed.transpose(1, 2).reshape(count, length, -1))
        hidden = hidden + block.mlp(block.norm2(hidden))
    return tower.merger(hidden).view(count, length // merge**2, -1)
