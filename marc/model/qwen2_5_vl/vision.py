"""How Qwen2.5-VL's vision tower is taken apart (`marc.model.tower`).

It attends within windows, and in some blocks within whole pictures; it puts patches into the order of windows and back
itself. So a part has the base class's own forward, over fewer blocks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel as Tower
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VLVisionAttention,
    apply_rotary_pos_emb_vision,
)

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


def tower_with_attention(tower: Tower) -> Tower:
    """The tower, sharing all weights, with what its last block attends to behind its features: ``[N, D + 1 + K]``.

    See `marc.model.family.Family`. What is added goes through the merger, and so stands in the order of the tokens.
    """
    twin = sharing(tower)
    last = sharing(tower.blocks[-1])
    last.attn = sharing(last.attn, RecordingAttention)
    last.attn.qkv = KeptOutput(last.attn.qkv)
    twin.blocks = nn.ModuleList([*tower.blocks[:-1], last])
    twin.merger = _MergerBesideAttention(tower.merger, last.attn, tower.spatial_merge_unit)
    return twin


class KeptOutput(nn.Module):
    """A module, and what it gave last, until that is taken."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._given: list[Tensor] = []

    def forward(self, hidden: Tensor) -> Tensor:
        """As the module's."""
        self._given = [self.module(hidden)]
        return self._given[0]

    def take(self) -> Tensor:
        """The output, once."""
        return self._given.pop()


class RecordingAttention(Qwen2_5_VLVisionAttention):
    """Attention, its ``qkv`` in `KeptOutput`, that says how much of it each patch receives, and what its keys are.

    Attributes:
        received: ``[N]``, the mean over heads and over the patches that attend; a picture's sum to 1.
        keys: ``[N, K]``, the mean over heads, with positions.
    """

    received: Tensor
    keys: Tensor

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """As the base class's."""
        attended: Tensor = super().forward(
            hidden_states, cu_seqlens, position_embeddings=position_embeddings, **kwargs
        )
        self.record(self.qkv.take(), cu_seqlens, position_embeddings)
        return attended

    @torch.no_grad()
    def record(self, projected: Tensor, starts: Tensor, positions: Any) -> None:
        """Notes what is attended to.

        Args:
            projected: Queries, keys and values, ``[N, 3 * C]``.
            starts: Of the pictures, and N: their places in it.
            positions: Cosines and sines of the patches.
        """
        queries, keys, _ = projected.unflatten(-1, (3, self.num_heads, -1)).unbind(1)
        queries_NHK, keys_NHK = (each.float() for each in apply_rotary_pos_emb_vision(queries, keys, *positions))
        lengths = starts.diff().tolist()
        received = [
            (own.transpose(0, 1) @ other.permute(1, 2, 0) * self.scaling).softmax(-1).mean((0, 1))
            for own, other in zip(queries_NHK.split(lengths), keys_NHK.split(lengths), strict=True)
        ]
        self.received, self.keys = torch.cat(received), keys_NHK.mean(1)


class _MergerBesideAttention(nn.Module):
    """The tower's merger, with the attention and the keys of each token's patches behind its features."""

    def __init__(self, merger: nn.Module, attention: RecordingAttention, unit: int) -> None:
        super().__init__()
        self.merger, self.attention, self.unit = merger, attention, unit

    def forward(self, patches: Tensor) -> Tensor:
        """``[N * unit, C] -> [N, D + 1 + K]``."""
        received = self.attention.received.unflatten(0, (-1, self.unit)).sum(1)
        keys = self.attention.keys.unflatten(0, (-1, self.unit)).mean(1)
        tokens: Tensor = self.merger(patches)
        return torch.cat((tokens.to(keys.dtype), received[:, None], keys), -1)
