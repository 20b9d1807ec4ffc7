"""Token merging (ToMe) inside Qwen2.5-VL's vision tower: each block leaves a grid fewer cells.

Bolya et al., arXiv 2210.09461. A block is the base class's own, on the cells that are left: windows lose members,
pictures get shorter, and rotary positions are those of the cells that remain. Behind it r cells of every grid merge
with the most similar of the others, by the mean of the block's keys over patches and heads, as means weighted by the
cells that each stands for. A cell of 2 x 2 patches, which is one token, merges as a whole.

Differences: the authors merge between attention and MLP, which these blocks have no room for, and attend in
proportion to a token's size.

Shapes: T grids of one size, P cells of a grid, n of these that are left, R = T * P, in the order of the tower's
windows, U patches of a cell, C features of a patch, K of a key, D of a token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel as Tower

from marc.compression.rivals.tome import match, weighted_means
from marc.model.qwen2_5_vl.vision import KeptOutput
from marc.model.tower import sharing


def tower_that_merges(tower: Tower, left: int) -> Tower:
    """The tower, sharing all weights, that leaves so many cells of a grid.

    It reads grids of one size, and gives ``[N, D + 1]``: the token that each cell became part of, and the cell of its
    grid at which that stands.

    Args:
        tower: The model's.
        left: Cells that its last block leaves of each grid, or more where that would take more than half at once.
    """
    twin: CellMergingTower = sharing(tower, CellMergingTower)
    twin.cells, twin.left = LeftCells(tower.spatial_merge_unit), left
    depth = len(tower.blocks)
    twin.blocks = nn.ModuleList(
        MergingBlock(block, twin.cells, depth - index) for index, block in enumerate(tower.blocks)
    )
    twin.merger = _MergerOfLeftCells(tower.merger, twin.cells)
    return twin


class LeftCells:
    """Which cells are left on the way through a tower.

    Attributes:
        rows: ``[T, n]``, their rows, ascending.
        sizes: ``[T, n]``, how many cells each stands for.
        members: ``[R]``, the row at which each cell stands.
        goal: How many cells of a grid are to be left.

    Args:
        unit: U.
    """

    rows: Tensor
    sizes: Tensor
    members: Tensor
    goal: int

    def __init__(self, unit: int) -> None:
        self.unit = unit

    def begin(self, grids: int, cells: int, goal: int, device: torch.device) -> None:
        """All are there."""
        self.members = torch.arange(grids * cells, device=device)
        self.rows = self.members.unflatten(0, (grids, cells))
        self.sizes, self.goal = torch.ones_like(self.rows), goal

    def starts(self, cu_seqlens: Tensor) -> Tensor:
        """Where sequences of patches begin, of which some are gone; those that are empty are left out."""
        bounds = torch.searchsorted(self.rows.flatten(), cu_seqlens.long() // self.unit) * self.unit
        return bounds.unique().to(cu_seqlens.dtype)

    def of_patches(self, values: Tensor) -> Tensor:
        """What belongs to the patches that are left, ``[R * U, ...]`` before."""
        return values.unflatten(0, (-1, self.unit))[self.rows.flatten()].flatten(0, 1)

    def merge(self, patches: Tensor, keys: Tensor, blocks: int) -> Tensor:
        """Merges as many cells of each grid as a block must if so many are left, and no more than half.

        Args:
            patches: ``[T * n * U, C]``.
            keys: ``[T * n * U, K]``.
            blocks: That are left, this one included.
        """
        grids, before = self.rows.shape
        merges = min(-(-max(0, before - self.goal) // blocks), before // 2)
        if merges == 0:
            return patches
        with torch.no_grad():
            pairs = match(keys.float().unflatten(0, (grids, before, self.unit)).mean(2), merges)
            stays = torch.ones_like(self.rows, dtype=torch.bool).scatter_(1, pairs.goes, False)
            becomes = stays.cumsum(1) - 1
            becomes.scatter_(1, pairs.goes, becomes.gather(1, 2 * pairs.to + 1))
            rows = self.rows[stays].unflatten(0, (grids, -1))
            moved = self.members.clone()
            moved[self.rows] = rows.gather(1, becomes)
            self.members = moved[self.members]
        merged = weighted_means(
            patches.unflatten(0, (grids, before, -1)).flatten(2), self.sizes, becomes, rows.shape[1]
        )
        self.sizes = torch.zeros_like(rows).scatter_add_(1, becomes, self.sizes)
        self.rows = rows
        return merged.unflatten(2, (self.unit, -1)).flatten(0, 2)


class MergingBlock(nn.Module):
    """A block on the cells that are left, behind which some of them merge.

    Args:
        block: The tower's.
        cells: Of the tower.
        blocks: That are left, this one included.
    """

    def __init__(self, block: nn.Module, cells: LeftCells, blocks: int) -> None:
        super().__init__()
        self.block = sharing(block)
        self.block.attn = sharing(self.block.attn)
        self.block.attn.qkv = KeptOutput(self.block.attn.qkv)
        self.cells, self.blocks = cells, blocks

    def forward(
        self, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor], **kwargs: Any
    ) -> Tensor:
        """As the block's, with what the whole video would need."""
        cells, attention = self.cells, self.block.attn
        patches = self.block(
            hidden_states,
            cu_seqlens=cells.starts(cu_seqlens),
            position_embeddings=tuple(map(cells.of_patches, position_embeddings)),
            **kwargs,
        )
        keys = attention.qkv.take().unflatten(-1, (3, attention.num_heads, -1))[:, 1].mean(1)
        return cells.merge(patches, keys, self.blocks)


class CellMergingTower(Tower):
    """See `tower_that_merges`."""

    cells: LeftCells
    left: int

    def forward(self, hidden_states: Tensor, grid_thw: Tensor, **kwargs: Any) -> Any:
        """As the base class's.

        Raises:
            ValueError: If grids differ in size.
        """
        sizes = grid_thw[:, 1:].prod(1) // self.spatial_merge_unit
        if len(sizes.unique()) > 1:
            raise ValueError("cells of grids of several sizes cannot merge together")
        cells = int(sizes[0])
        self.cells.begin(int(grid_thw[:, 0].sum()), cells, self.left, hidden_states.device)
        output = super().forward(hidden_states, grid_thw, **kwargs)
        tokens, rows, stands = output.pooler_output.tensor_split([-2, -1], dim=1)
        of_row = rows[:, 0].long().argsort()
        output.pooler_output = torch.cat((tokens, (of_row[stands[:, 0].long()] % cells)[:, None].to(tokens)), 1)
        return output


class _MergerOfLeftCells(nn.Module):
    """The tower's merger: every cell gets the token that it became part of, and behind it its row and that token's."""

    def __init__(self, merger: nn.Module, cells: LeftCells) -> None:
        super().__init__()
        self.merger, self.cells = merger, cells

    def forward(self, patches: Tensor) -> Tensor:
        """``[T * n * U, C] -> [R, D + 2]``, in float32 at least: rows are numbers."""
        tokens, members = self.merger(patches), self.cells.members
        own = torch.searchsorted(self.cells.rows.flatten(), members)
        about = torch.stack((torch.arange(len(members), device=members.device), members), 1)
        precise = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        return torch.cat((precise[own], about.to(precise.dtype)), 1)
