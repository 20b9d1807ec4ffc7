"""The vision tower with less to do: equal grids once, grids merged on the way, in chunks that bound its memory.

A tower that attends within a temporal grid only, and whose positions are those within the picture, need encode grids
with equal pixels once, may read grids a few at a time, and may go on with an average of grids between any two blocks.
It is run in parts, each the family's own unmodified ``forward`` over some of its blocks and grids: orders, lengths and
rotary tables are thereby those of the grids that are there, and with nothing merged inside the result is the stock
tower's. How a tower is taken apart is the family's affair (`CutTower`).

Shapes: T temporal grids, S grids that remain, N patches of a grid, C numbers of a patch, P cells of a grid, X features
of a cell's patches side by side, D features of a token, W those of all its streams (`marc.model.streams`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import prod
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from marc.compression.duplicates import distinct_grids
from marc.compression.merge import CompressedVideo, compress_videos, no_autocast
from marc.compression.plan import VideoPlan
from marc.model.streams import side_by_side

GridThw = tuple[int, int, int]
"""Temporal grids, height and width in patches."""
CutTower = Callable[[Any, int, int], Any]
"""``(tower, start, stop)``: blocks ``start`` to ``stop`` of a tower as a tower of their own, sharing all weights. The
first part reads pixels, the last one returns tokens; between parts travel the patches of each cell side by side, in
raster order. A part returns the DeepStack features of its own blocks."""


@dataclass(frozen=True)
class TowerOutput:
    """What the tower gives of one video after merging.

    Attributes:
        tokens: ``[S, P, W]``.
        members: ``int64 [T]``: the grid in which each temporal grid ended.
        counts: ``[S]``: how many temporal grids each stands for.
        weights: ``[S, T]``: the part that each temporal grid has in each, as if merging came last; rows sum to 1.
    """

    tokens: Tensor
    members: Tensor
    counts: Tensor
    weights: Tensor


class UnmergedCells(nn.Module):
    """In place of the merger: puts the patches of each cell side by side, ``[N * unit, D] -> [N, unit * D]``."""

    def __init__(self, unit: int) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, patches: Tensor) -> Tensor:
        """Reshapes."""
        return patches.reshape(len(patches) // self.unit, -1)


class WholePatchConv3d(nn.Conv3d):
    """A convolution whose kernel covers its input once: a product of matrices, equal up to rounding and faster."""

    def forward(self, input: Tensor) -> Tensor:
        """``[N, channels, ...] -> [N, features]``."""
        return F.linear(input.flatten(1), self.weight.flatten(1), self.bias)


def sharing(module: Any, kind: type[nn.Module] | None = None) -> Any:
    """A module with the same weights, buffers and hooks, perhaps of another class; its submodules can be replaced."""
    twin = copy(module)
    twin.__class__ = kind or type(module)
    twin._modules = dict(module._modules)
    if hasattr(module, "_hf_hook"):  # accelerate's `forward` is an attribute, made for one module
        twin._old_forward = MethodType(type(twin).forward, twin)
        twin.forward = partial(module.forward.func, twin)
    return twin


def with_linear_patches(tower: Any) -> Any:
    """The tower, sharing all weights, with its patch embedding as a product of matrices, unless that was adapted."""
    if type(tower.patch_embed.proj) is not nn.Conv3d:
        return tower
    part = sharing(tower)
    part.patch_embed = sharing(tower.patch_embed)
    part.patch_embed.proj = sharing(tower.patch_embed.proj, WholePatchConv3d)
    return part


@dataclass(frozen=True)
class MergingTower:
    """A vision tower that reads several videos and merges their grids on the way.

    Attributes:
        tower: The family's: it has ``blocks``, a ``patch_embed``, a ``spatial_merge_unit`` and a ``config``, and gives
            its tokens as ``pooler_output`` (with DeepStack also ``deepstack_features``) of patches and ``grid_thw``.
        cut: Takes it apart.
        chunk: Most patches that it reads at once, see `run_in_chunks`.
        duplicates: Grids that differ by no more are encoded once, see `distinct_grids`; ``None``: each by itself.
    """

    tower: Any
    cut: CutTower
    chunk: int | None = None
    duplicates: float | None = None

    def __call__(self, pixels: Tensor, grids: Sequence[GridThw], plans: Sequence[VideoPlan]) -> list[TowerOutput]:
        """Encodes videos.

        Args:
            pixels: As the processor makes them.
            grids: Of each video.
            plans: One per video, all with the same layers, or none.

        Raises:
            ValueError: If the tower has no such layer.
        """
        depth, layers = len(self.tower.blocks), [layer for layer, _ in plans[0].tower]
        if layers and layers[-1] >= depth:
            raise ValueError(f"compression.tower_layer {layers[-1]} is not inside the vision tower of {depth} blocks")
        sizes = [grid[1:] for grid in grids]
        hidden, out = self.tower.config.hidden_size, self.tower.config.out_hidden_size
        cell = self.tower.spatial_merge_unit * hidden
        videos_TPW = self._first_blocks([*layers, depth][0], split_videos(pixels, grids), sizes, plans)
        members = [torch.arange(grid[0], device=pixels.device) for grid in grids]
        counts = [torch.ones(grid[0], device=pixels.device) for grid in grids]
        weights = [torch.eye(grid[0], device=pixels.device) for grid in grids]
        for stage, (start, stop) in enumerate(pairwise([*layers, depth])):
            inside = [plan.tower[stage][1] for plan in plans]
            merged = compress_videos(videos_TPW, inside, counts if stage > 0 else None, decided_by=cell)
            members = [video.grid_of(member) for video, member in zip(merged, members, strict=True)]
            weights = [_composed(video, before) for video, before in zip(merged, weights, strict=True)]
            counts = [
                (member == torch.arange(len(video.grids), device=member.device)[:, None]).sum(1)
                for video, member in zip(merged, members, strict=True)
            ]
            videos_TNC = [video.tokens[..., :cell].reshape(len(video.grids), -1, hidden) for video in merged]
            later_TPW = run_in_chunks(self.cut(self.tower, start, stop), videos_TNC, sizes, self.chunk)
            width = out if stop == depth else cell
            videos_TPW = [
                torch.cat((later[..., :width], video.tokens[..., cell:], later[..., width:]), -1)
                for video, later in zip(merged, later_TPW, strict=True)
            ]
        return [TowerOutput(*video) for video in zip(videos_TPW, members, counts, weights, strict=True)]

    def _first_blocks(
        self, stop: int, videos_TNC: Sequence[Tensor], sizes: Sequence[tuple[int, int]], plans: Sequence[VideoPlan]
    ) -> list[Tensor]:
        """The blocks that read pixels; those of videos that merge inside it embed patches by a matrix.

        Which way a video goes depends on itself alone, and so do its numbers.
        """
        stands_for = [_distinct(video_TNC, self.duplicates) for video_TNC in videos_TNC]
        firsts_TNC = [video[firsts] for video, (firsts, _) in zip(videos_TNC, stands_for, strict=True)]
        merging = [any(stage.merges for _, stage in plan.tower) for plan in plans]
        outputs: dict[int, Tensor] = {}
        for is_merging in sorted(set(merging)):
            tower = with_linear_patches(self.tower) if is_merging else self.tower
            own = [video for video, merges in enumerate(merging) if merges == is_merging]
            own_TNC, own_sizes = [firsts_TNC[video] for video in own], [sizes[video] for video in own]
            tokens = run_in_chunks(self.cut(tower, 0, stop), own_TNC, own_sizes, self.chunk)
            outputs.update(zip(own, tokens, strict=True))
        return [outputs[video][numbers] for video, (_, numbers) in enumerate(stands_for)]


def _composed(merged: CompressedVideo, before_ST: Tensor) -> Tensor:
    """The part of each temporal grid in each that remains, after one more stage."""
    assert merged.weights is not None, "grids merge whole"
    with no_autocast(before_ST.device.type):
        return merged.weights.to(before_ST) @ before_ST


def split_videos(pixels: Tensor, grids: Sequence[GridThw]) -> list[Tensor]:
    """The patches of each temporal grid, ``[T, N, C]`` of each video."""
    videos = pixels.split([prod(grid) for grid in grids])
    return [video.unflatten(0, (grid[0], -1)) for video, grid in zip(videos, grids, strict=True)]


def _distinct(video_TNC: Tensor, threshold: float | None) -> tuple[Tensor | slice, Tensor | slice]:
    """Which grids to encode, and which of these encodings stands for each grid."""
    numbers = None if threshold is None else torch.tensor(distinct_grids(video_TNC, threshold))
    if numbers is None or numbers[-1] == len(numbers) - 1:
        return slice(None), slice(None)
    firsts = torch.cat([torch.zeros(1, dtype=torch.long), 1 + numbers.diff().nonzero()[:, 0]])
    return firsts.to(video_TNC.device), numbers.to(video_TNC.device)


def run_in_chunks(
    part: Any, videos_TNC: Sequence[Tensor], sizes: Sequence[tuple[int, int]], chunk: int | None
) -> list[Tensor]:
    """Runs a tower, or a part of it, a few grids at a time, so that its activations do not grow with the videos.

    Where gradients are wanted and a chunk cannot hold everything, each is computed again in the backward pass, instead
    of keeping the activations of all.

    Args:
        part: Of the tower.
        videos_TNC: What it reads of each video, ``[T, N, C]``.
        sizes: Height and width in patches of each video.
        chunk: Most patches of one video at once, but at least one grid: what comes out of a video does not depend on
            the others by a single bit. ``None``: all videos at once.

    Returns:
        ``[T, P, W]`` of each video.
    """
    pieces = list(_chunks([(len(video), video.shape[1]) for video in videos_TNC], chunk))
    total = sum(prod(video.shape[:2]) for video in videos_TNC)
    recompute = chunk is not None and total > chunk and torch.is_grad_enabled()
    outputs: dict[int, list[Tensor]] = defaultdict(list)
    for piece in pieces:
        grids_TNC = [videos_TNC[video][grids] for video, grids in piece]
        patches = torch.cat([grids.flatten(0, 1) for grids in grids_TNC]).to(part.dtype)
        grid_thw = torch.tensor(
            [[len(grids), *sizes[video]] for grids, (video, _) in zip(grids_TNC, piece, strict=True)],
            device=patches.device,
        )
        if recompute:
            output = checkpoint(part, patches, grid_thw=grid_thw, use_reentrant=False)
        else:
            output = part(patches, grid_thw=grid_thw)
        cells = side_by_side(output.pooler_output, getattr(output, "deepstack_features", None))
        counts = (grid_thw.prod(1) // part.spatial_merge_unit).tolist()
        for (video, _), grids, own in zip(piece, grids_TNC, cells.split(counts), strict=True):
            outputs[video].append(own.unflatten(0, (len(grids), -1)))
    return [torch.cat(outputs[video]) for video in range(len(videos_TNC))]


def _chunks(shapes: Sequence[tuple[int, int]], chunk: int | None) -> Iterator[list[tuple[int, slice]]]:
    """Cuts videos of ``(grids, patches of a grid)`` into pieces: lists of a video's index and some of its grids."""
    if chunk is None:
        yield [(video, slice(None)) for video in range(len(shapes))]
        return
    for video, (grids, patches) in enumerate(shapes):
        step = max(1, chunk // patches)
        for start in range(0, grids, step):
            yield [(video, slice(start, start + step))]
