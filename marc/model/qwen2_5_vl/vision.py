"""The vision tower with less to do: equal frames once, frames merged on the way, in chunks that bound its memory.

Qwen2.5-VL's tower attends within a temporal grid only, and its positions are those within the picture. So frames with
equal pixels need one encoding, frames may be run a few at a time, and a frame may be replaced by an average of frames
between any two blocks, after which the later blocks run on what is left. The tower is run in parts, each part the base
class's own unmodified ``forward`` over some of its blocks and frames: window order, lengths and rotary tables are
thereby those of the frames that are there, and with nothing merged inside the result is the stock tower's.

Shapes: T temporal grids, S frames that remain, N patches of a frame, C numbers of a patch, P merged tokens ("cells")
of a frame, X features of a cell's patches side by side, D features of a token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from math import prod
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel as Tower

from marc.compression.duplicates import distinct_frames
from marc.compression.merge import CompressedFrames, compress_planned
from marc.compression.plan import VideoPlan

Grid = tuple[int, int, int]
"""Temporal grids, height and width in patches."""


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


class WholePatchConv3d(nn.Conv3d):
    """A convolution whose kernel covers its input once: a product of matrices, equal up to rounding and faster."""

    def forward(self, input: Tensor) -> Tensor:
        """``[N, channels, ...] -> [N, features]``."""
        return F.linear(input.flatten(1), self.weight.flatten(1))


def tower_part(tower: Tower, start: int, stop: int) -> Tower:
    """Blocks ``start`` to ``stop`` of the tower as a tower of their own, sharing all weights.

    The first part reads pixels, the last one returns tokens; between parts travel the patches of each cell side by
    side, in raster order.
    """
    part = _sharing(tower)
    part.blocks = tower.blocks[start:stop]
    part.fullatt_block_indexes = [index - start for index in tower.fullatt_block_indexes]
    if start > 0:
        part.patch_embed = nn.Identity()
    if stop < len(tower.blocks):
        part.merger = SideBySide(tower.spatial_merge_unit)
    return part


def with_linear_patches(tower: Tower) -> Tower:
    """The tower, sharing all weights, with its patch embedding as a product of matrices, unless that was adapted."""
    if type(tower.patch_embed.proj) is not nn.Conv3d:
        return tower
    part = _sharing(tower)
    part.patch_embed = _sharing(tower.patch_embed)
    part.patch_embed.proj = _sharing(tower.patch_embed.proj, WholePatchConv3d)
    return part


def _sharing(module: Any, kind: type[nn.Module] | None = None) -> Any:
    """A module with the same weights, buffers and hooks, perhaps of another class; its submodules can be replaced."""
    twin = copy(module)
    twin.__class__ = kind or type(module)
    twin._modules = dict(module._modules)
    if hasattr(module, "_hf_hook"):  # accelerate's `forward` is an attribute, made for one module
        twin._old_forward = MethodType(type(twin).forward, twin)
        twin.forward = partial(module.forward.func, twin)
    return twin


def run_tower(
    tower: Tower,
    pixels: Tensor,
    grids: Sequence[Grid],
    plans: Sequence[VideoPlan],
    *,
    chunk: int | None = None,
    duplicates: float | None = None,
) -> list[TowerFrames]:
    """Runs the tower over several videos and merges their frames on the way.

    Args:
        tower: Qwen2.5-VL's.
        pixels: As the processor makes them.
        grids: Of each video.
        plans: One per video, all with the same layers, or none.
        chunk: Most patches that the tower reads at once, see `run_in_chunks`.
        duplicates: Frames that differ by no more are encoded once, see `distinct_frames`; ``None``: each by itself.

    Raises:
        ValueError: If the tower has no such layer.
    """
    layers = [layer for layer, _ in plans[0].tower]
    if layers and layers[-1] >= len(tower.blocks):
        raise ValueError(
            f"compression.tower_layer {layers[-1]} is not inside the vision tower of {len(tower.blocks)} blocks"
        )
    merging = [any(stage.merges for _, stage in plan.tower) for plan in plans]
    videos_TNC = frames_of(pixels, grids)
    stands_for = [_distinct(video_TNC, duplicates) for video_TNC in videos_TNC]
    videos_TNC = [video[firsts] for video, (firsts, _) in zip(videos_TNC, stands_for, strict=True)]
    areas = [grid[1:] for grid in grids]
    members = [torch.arange(grid[0], device=pixels.device) for grid in grids]
    sizes = [torch.ones(grid[0], device=pixels.device) for grid in grids]
    for stage, (start, stop) in enumerate(zip([0, *layers], [*layers, len(tower.blocks)], strict=True)):
        if stage == 0:
            seen = _run_first_blocks(tower, stop, videos_TNC, areas, merging, chunk)
            videos_TPX = [video[numbers] for video, (_, numbers) in zip(seen, stands_for, strict=True)]
        else:
            videos_TPX = run_in_chunks(tower_part(tower, start, stop), videos_TNC, areas, chunk)
        if stage == len(layers):
            break
        merged = compress_videos(videos_TPX, [plan.tower[stage][1] for plan in plans], sizes if stage > 0 else None)
        members = [video.members[member] for video, member in zip(merged, members, strict=True)]
        sizes = [
            (member == torch.arange(len(video.frames), device=member.device)[:, None]).sum(1)
            for video, member in zip(merged, members, strict=True)
        ]
        videos_TNC = [video.tokens.reshape(len(video.frames), -1, tower.config.hidden_size) for video in merged]
    return [TowerFrames(*video) for video in zip(videos_TPX, members, sizes, strict=True)]


def _run_first_blocks(
    tower: Tower,
    stop: int,
    videos_TNC: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    merging: Sequence[bool],
    chunk: int | None,
) -> list[Tensor]:
    """The blocks that read pixels; those of videos that merge inside the tower embed patches as products of matrices.

    Which way a video goes depends on itself alone, and so do its numbers.
    """
    outputs: dict[int, Tensor] = {}
    for is_merging in sorted(set(merging)):
        part = tower_part(with_linear_patches(tower) if is_merging else tower, 0, stop)
        own = [video for video, merges in enumerate(merging) if merges == is_merging]
        tokens = run_in_chunks(part, [videos_TNC[video] for video in own], [sizes[video] for video in own], chunk)
        outputs.update(zip(own, tokens, strict=True))
    return [outputs[video] for video in range(len(merging))]


def frames_of(pixels: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
    """The patches of each frame ``[T, N, C]`` of several videos."""
    videos = pixels.split([prod(grid) for grid in grids])
    return [video.unflatten(0, (grid[0], -1)) for video, grid in zip(videos, grids, strict=True)]


def _distinct(video_TNC: Tensor, threshold: float | None) -> tuple[Tensor | slice, Tensor | slice]:
    """Which frames to encode, and which of these encodings stands for each frame."""
    numbers = None if threshold is None else torch.tensor(distinct_frames(video_TNC, threshold))
    if numbers is None or numbers[-1] == len(numbers) - 1:
        return slice(None), slice(None)
    firsts = torch.cat([torch.zeros(1, dtype=torch.long), 1 + numbers.diff().nonzero()[:, 0]])
    return firsts.to(video_TNC.device), numbers.to(video_TNC.device)


def run_in_chunks(
    part: Tower, videos_TNC: Sequence[Tensor], sizes: Sequence[tuple[int, int]], chunk: int | None
) -> list[Tensor]:
    """Runs a tower, or a part of it, a few frames at a time, so that its activations do not grow with the videos.

    Where gradients are wanted and a chunk cannot hold everything, each is computed again in the backward pass, instead
    of keeping the activations of all.

    Args:
        part: Of the tower.
        videos_TNC: What it reads of each video, ``[T, N, C]``.
        sizes: Height and width in patches of each video.
        chunk: Most patches of one video at once, but at least one frame: what comes out of a video does not depend on
            the others by a single bit. ``None``: all videos at once.

    Returns:
        ``[T, P, X]`` of each video.
    """
    pieces = list(_chunks([(len(video), video.shape[1]) for video in videos_TNC], chunk))
    total = sum(prod(video.shape[:2]) for video in videos_TNC)
    recompute = chunk is not None and total > chunk and torch.is_grad_enabled()
    outputs: dict[int, list[Tensor]] = defaultdict(list)
    for piece in pieces:
        frames_TNC = [videos_TNC[video][frames] for video, frames in piece]
        patches = torch.cat([frames.flatten(0, 1) for frames in frames_TNC]).to(part.dtype)
        grid_thw = torch.tensor(
            [[len(frames), *sizes[video]] for frames, (video, _) in zip(frames_TNC, piece, strict=True)],
            device=patches.device,
        )
        if recompute:
            cells = checkpoint(part, patches, grid_thw=grid_thw, use_reentrant=False).pooler_output
        else:
            cells = part(patches, grid_thw=grid_thw).pooler_output
        counts = (grid_thw.prod(1) // part.spatial_merge_unit).tolist()
        for (video, _), frames, own in zip(piece, frames_TNC, cells.split(counts), strict=True):
            outputs[video].append(own.unflatten(0, (len(frames), -1)))
    return [torch.cat(outputs[video]) for video in range(len(videos_TNC))]


def _chunks(shapes: Sequence[tuple[int, int]], chunk: int | None) -> Iterator[list[tuple[int, slice]]]:
    """Cuts videos of ``(frames, patches of a frame)`` into pieces: lists of a video's index and some of its frames."""
    if chunk is None:
        yield [(video, slice(None)) for video in range(len(shapes))]
        return
    for video, (frames, patches) in enumerate(shapes):
        step = max(1, chunk // patches)
        for start in range(0, frames, step):
            yield [(video, slice(start, start + step))]


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
