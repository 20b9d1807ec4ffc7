"""The method's mathematics: merging the most similar neighbouring grids, as pure tensor functions.

Which grids merge is decided without gradients; what comes out is one weighted sum of the input grids, so gradients
reach every grid with exactly the weight that it has in the result. Nothing waits for the device: the number of
merges is known from the plan, and the choice of the pair stays on the device. Synchronisations per video: zero.

Shapes: B videos with the same plan, T temporal grids, P cells a grid, D channels, S grids that remain, N tokens that
remain.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.amp import is_autocast_available

from marc.compression.cells import Cells, Size, Uneven, covered
from marc.compression.config import CompressionConfig
from marc.compression.plan import VideoPlan, plan_video
from marc.compression.renamed import renamed, renamed_arguments
from marc.compression.rivals.rule import RULES, EncodedVideo, Rule


@dataclass(frozen=True)
class CompressedVideo:
    """What remains of one video.

    Attributes:
        grids: The merged grids in time order, each ``[P', D]`` with P' its cells in reading order.
        cells: How each is divided.
        members: ``int64 [T]``, the index of the merged grid in which each input grid ended; ``None`` where a rule of
            `marc.compression.rivals` kept single tokens.
        weights: ``[S, T]`` in float32 or better, the weight of each input grid in each merged one; rows sum to 1.
            ``None`` likewise.
        centers: Mean grid index of each merged grid (see `VideoPlan`).
        places: ``int64 [N]``, the grid and cell ``t * P + p`` at which each token stands that such a rule kept.
    """

    grids: tuple[Tensor, ...]
    cells: tuple[Cells, ...]
    members: Tensor | None
    weights: Tensor | None
    centers: tuple[float, ...]
    places: Tensor | None = None

    frames = renamed("grids")

    def grid_of(self, grids: Tensor) -> Tensor:
        """The merged grid in which each of some input grids ended."""
        assert self.members is not None, "single tokens were kept"
        return self.members[grids]

    @property
    def tokens(self) -> Tensor:
        """All merged grids as ``[S, P', D]``; needs grids of one size."""
        if len(set(self.cells)) > 1:
            raise ValueError(f"the merged grids differ in size {self.cells}: read `grids` or `flat` instead")
        return torch.stack(self.grids)

    @property
    def flat(self) -> Tensor:
        """All tokens in order, ``[N, D]``."""
        return torch.cat(self.grids)


def frame_similarity(a_PD: Tensor, b_PD: Tensor) -> Tensor:
    """Patch-aligned mean cosine similarity (MARC, memory-aware compression).

    ``sim(H_a, H_b) = 1/P sum_p <h_a^p, h_b^p> / (|h_a^p| |h_b^p|)``

    Args:
        a_PD: ``[..., P, D]``.
        b_PD: ``[..., P, D]``.

    Returns:
        ``[...]`` in ``[-1, 1]``, in float32 or better. A patch of zeros has similarity 0 with everything.
    """
    dtype = torch.promote_types(torch.promote_types(a_PD.dtype, b_PD.dtype), torch.float32)
    return F.cosine_similarity(a_PD.to(dtype), b_PD.to(dtype), dim=-1).mean(-1)


@renamed_arguments(grid="size")
def compress(
    tokens_TPD: Tensor,
    config: CompressionConfig,
    *,
    events: Sequence[int] | Tensor | None = None,
    shares: Sequence[int] | None = None,
    size: Size | None = None,
) -> CompressedVideo:
    """Compresses the visual tokens of one video.

    Args:
        tokens_TPD: ``[T, P, D]`` from the vision tower.
        config: The options.
        events: ``int [T]`` event ids, non-decreasing; ``None``: see `plan_video`.
        shares: Tokens per event, see `plan_video`.
        size: ``(height, width)`` with ``height * width = P``; by default the factors of P nearest to a square.

    Raises:
        ValueError: If the shapes, events or shares do not fit.
    """
    if tokens_TPD.ndim != 3:
        raise ValueError(f"compress needs tokens of shape [T, P, D], got {list(tokens_TPD.shape)}")
    grids, cells, _ = tokens_TPD.shape
    size = size or _squarest(cells)
    if size[0] * size[1] != cells:
        raise ValueError(f"a size of {size} does not hold P = {cells} cells")
    ids = events.tolist() if isinstance(events, Tensor) else events
    if config.enabled:
        plan = plan_video(grids, size, config, events=ids, shares=shares)
    else:
        plan = VideoPlan.whole(grids, size)
    return compress_videos([tokens_TPD], [plan])[0]


def compress_planned(
    tokens_BTPD: Tensor, plan: VideoPlan, *, counts_BT: Tensor | None = None, decided_by: int | None = None
) -> list[CompressedVideo]:
    """Carries out one plan on a batch of videos that share it.

    Args:
        tokens_BTPD: ``[B, T, P, D]``.
        plan: From `plan_video`; what it wants done inside the tower is the caller's to do before.
        counts_BT: How many grids each of the T already stands for, ``[B, T]``; ``None``: one.
        decided_by: By how many of the D channels, the first ones, grids are similar; ``None``: all.
    """
    batch, count, cells, _ = tokens_BTPD.shape
    assert (count, cells) == (plan.grids, plan.size[0] * plan.size[1])
    with no_autocast(tokens_BTPD.device.type):
        weights_BST = merge_weights(tokens_BTPD[..., :decided_by], plan, counts_BT=counts_BT)
        merged_BSPD = _weighted_sum(weights_BST, tokens_BTPD)
        grids = _pooled(merged_BSPD, plan)
    members_BT = weights_BST.argmax(1)
    return [
        CompressedVideo(
            tuple(grid_BPD[video] for grid_BPD in grids),
            plan.cells,
            members_BT[video],
            weights_BST[video],
            plan.centers,
        )
        for video in range(batch)
    ]


def compress_videos(
    videos_TPD: Sequence[Tensor],
    plans: Sequence[VideoPlan],
    counts: Sequence[Tensor] | None = None,
    *,
    decided_by: int | None = None,
) -> list[CompressedVideo]:
    """Carries out one plan per video; videos with equal plans go together.

    Args:
        videos_TPD: ``[T, P, D]`` each.
        plans: One per video.
        counts: How many temporal grids each of the T already stands for, ``[T]`` each; ``None``: one.
        decided_by: See `compress_planned`. Behind so many channels stand what a rule of `marc.compression.rivals`
            wants to know beside the tokens: the attention that each cell receives, and its keys; or where the token
            stands that each cell became part of.
    """
    together: dict[VideoPlan, list[int]] = defaultdict(list)
    results: dict[int, CompressedVideo] = {}
    for video, plan in enumerate(plans):
        if plan.rule is None:
            together[plan].append(video)
        else:
            results[video] = _kept_by_rule(RULES[plan.rule], videos_TPD[video], plan, decided_by)
    for plan, videos in together.items():
        tokens = torch.stack([videos_TPD[video] for video in videos])
        known = None if counts is None else torch.stack([counts[video] for video in videos])
        compressed = compress_planned(tokens, plan, counts_BT=known, decided_by=decided_by)
        results.update(zip(videos, compressed, strict=True))
    return [results[video] for video in range(len(plans))]


def _kept_by_rule(rule: Rule, channels_TPX: Tensor, plan: VideoPlan, width: int | None) -> CompressedVideo:
    """Has a rule choose a video's tokens, from those and whatever else was found out about them."""
    width = channels_TPX.shape[-1] if width is None else width
    known = {}
    if channels_TPX.shape[-1] > width and rule.merges_inside:
        known = {"standing": channels_TPX[..., width].long()}
    elif channels_TPX.shape[-1] > width:
        known = {"attention": channels_TPX[..., width], "keys": channels_TPX[..., width + 1 :]}
    events = [event for event, window in enumerate(plan.windows) for _ in range(window.length)]
    with no_autocast(channels_TPX.device.type):
        video = EncodedVideo(channels_TPX[..., :width], plan.size, events, shares=plan.shares, **known)
        kept = rule.keep(video, plan.tokens)
    return CompressedVideo((kept.tokens,), plan.cells, None, None, plan.centers, kept.places)


def no_autocast(device_type: str) -> AbstractContextManager[object]:
    """Autocast off; torch refuses even that for devices that have none, such as the meta device."""
    return torch.autocast(device_type, enabled=False) if is_autocast_available(device_type) else nullcontext()


@torch.no_grad()
def merge_weights(tokens_BTPD: Tensor, plan: VideoPlan, *, counts_BT: Tensor | None = None) -> Tensor:
    """Decides which grids merge: inside the windows of events first (stage 1), then across the whole video (stage 2).

    The most similar adjacent pair becomes ``H = (H_a + H_b) / 2`` again and again; ties go to the earliest pair. Inner
    products of merged grids follow from those of the input grids, so the tokens themselves are read only once.

    Args:
        tokens_BTPD: ``[B, T, P, D]``.
        plan: The plan that all B videos share.
        counts_BT: See `compress_planned`.

    Returns:
        ``[B, S, T]``: the weight of each grid in each merged grid; every grid is in exactly one.
    """
    batch, grids = tokens_BTPD.shape[:2]
    dtype, device = torch.promote_types(tokens_BTPD.dtype, torch.float32), tokens_BTPD.device
    weights = torch.eye(grids, dtype=dtype, device=device).repeat(batch, 1, 1)
    if plan.merge == "weighted" and plan.one_grid_per_window and counts_BT is None:
        return torch.stack([weights[:, start : start + length].mean(1) for start, length, _ in plan.windows], dim=1)
    window_T = torch.tensor([index for index, window in enumerate(plan.windows) for _ in range(window.length)])
    room_W = torch.tensor([window.length - window.keep for window in plan.windows])
    window_T, room_BW = (values.to(device, non_blocking=True) for values in (window_T, room_W.repeat(batch, 1)))
    merges_inside = sum(window.length - window.keep for window in plan.windows)
    counts_BT = weights.sum(-1) if counts_BT is None else counts_BT.to(dtype)
    products = _inner_products(tokens_BTPD.to(dtype), plan)
    state = _MergeState.start(products, weights, counts_BT, window_T)
    for step in range(grids - len(plan.cells)):
        inside = step < merges_inside
        pair = state.most_similar_pair(room_BW if inside else None)
        if inside:
            room_BW.scatter_add_(1, state.window_of(pair)[:, None], torch.full_like(pair, -1)[:, None])
        state.merge(pair, weighted=plan.merge == "weighted")
    return state.remaining_weights()


def _inner_products(tokens_BTPD: Tensor, plan: VideoPlan) -> Tensor:
    """Inner products of grids that may merge, patch by patch: ``[B, T, T, P]``, 0 between those that may not."""
    batch, grids, cells, _ = tokens_BTPD.shape
    products_BTTP = tokens_BTPD.new_zeros(batch, grids, grids, cells)
    runs = [(start, length) for start, length, _ in plan.windows] if plan.one_grid_per_window else [(0, grids)]
    for start, length in runs:
        own = slice(start, start + length)
        for video, tokens_TPD in enumerate(tokens_BTPD):
            run_PTD = tokens_TPD[own].transpose(0, 1)
            products_BTTP[video, own, own] = (run_PTD @ run_PTD.mT).permute(1, 2, 0)
    return products_BTTP


@dataclass
class _MergeState:
    """The grids that remain while pairs are being merged; every merged grid lives on in the slot of its left part.

    Attributes:
        products: ``[B, T, T, P]`` inner products between slots.
        weights: ``[B, T, T]`` weights of the input grids in each slot.
        counts: ``[B, T]`` number of input grids in each slot.
        windows: ``[T]`` window of each slot.
        slots: ``[B, n]`` the slots that remain, in time order.
        similarity: ``[B, n - 1]`` of each remaining grid with the next.
    """

    products: Tensor
    weights: Tensor
    counts: Tensor
    windows: Tensor
    slots: Tensor
    similarity: Tensor

    @classmethod
    def start(cls, products: Tensor, weights: Tensor, counts: Tensor, windows: Tensor) -> _MergeState:
        batch, grids = weights.shape[:2]
        slots = torch.arange(grids, device=weights.device).repeat(batch, 1)
        state = cls(products, weights, counts, windows, slots, slots.new_empty(0))
        state.similarity = state.cosine(slots[:, :-1], slots[:, 1:])
        return state

    @property
    def video(self) -> Tensor:
        return torch.arange(len(self.slots), device=self.slots.device)

    def cosine(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean cosine similarity of slots ``a`` and ``b``, both ``[B, n]``."""
        video = self.video[:, None]
        norms = self.products[video, a, a] * self.products[video, b, b]
        return (self.products[video, a, b] * norms.clamp_min(1e-16).rsqrt()).mean(-1)

    def most_similar_pair(self, room_BW: Tensor | None) -> Tensor:
        """Place ``[B]`` of the left grid of the best pair; given ``room_BW``, inside windows that may still merge."""
        if room_BW is None:
            return self.similarity.argmax(1)
        window = self.windows[self.slots]
        allowed = (window[:, :-1] == window[:, 1:]) & (room_BW.gather(1, window[:, :-1]) > 0)
        return self.similarity.masked_fill(~allowed, -torch.inf).argmax(1)

    def window_of(self, place: Tensor) -> Tensor:
        return self.windows[self.slots[self.video, place]]

    def merge(self, pair: Tensor, *, weighted: bool) -> None:
        video = self.video
        left, right = self.slots[video, pair], self.slots[video, pair + 1]
        part = self.counts[video, left] / (self.counts[video, left] + self.counts[video, right])
        part = (part if weighted else torch.full_like(part, 0.5))[:, None]
        self.weights[video, left] = torch.lerp(self.weights[video, right], self.weights[video, left], part)
        part = part[:, None]
        self.products[video, left] = torch.lerp(self.products[video, right], self.products[video, left], part)
        self.products[video, :, left] = torch.lerp(self.products[video, :, right], self.products[video, :, left], part)
        self.counts[video, left] += self.counts[video, right]
        self.slots = _without(self.slots, pair + 1)
        self.similarity = _without(self.similarity, pair)
        last = self.slots.shape[1] - 1
        for place in (pair - 1, pair):
            neighbours = self.slots[video, place.clamp(min=0)], self.slots[video, (place + 1).clamp(max=last)]
            fresh = self.cosine(neighbours[0][:, None], neighbours[1][:, None])
            here = torch.arange(last, device=pair.device) == place[:, None]
            self.similarity = torch.where(here, fresh, self.similarity)

    def remaining_weights(self) -> Tensor:
        return self.weights.gather(1, self.slots[:, :, None].expand(-1, -1, self.weights.shape[2]))


def _without(values_BN: Tensor, place_B: Tensor) -> Tensor:
    """Drops one entry of every row: ``[B, N] -> [B, N - 1]``."""
    index = torch.arange(values_BN.shape[1] - 1, device=values_BN.device)
    return values_BN.gather(1, index + (index >= place_B[:, None]))


def _weighted_sum(weights_BST: Tensor, tokens_BTPD: Tensor) -> Tensor:
    tokens_BTX = tokens_BTPD.to(weights_BST.dtype).flatten(2)
    merged = torch.stack([weights @ tokens for weights, tokens in zip(weights_BST, tokens_BTX, strict=True)])
    return merged.unflatten(2, tokens_BTPD.shape[2:]).to(tokens_BTPD.dtype)


def _pooled(grids_BSPD: Tensor, plan: VideoPlan) -> list[Tensor]:
    """Each grid that remains, divided as planned: S of ``[B, P', D]``."""
    alike: dict[Cells, list[int]] = defaultdict(list)
    for index, cells in enumerate(plan.cells):
        alike[cells].append(index)
    pooled: dict[int, Tensor] = {}
    for cells, indices in alike.items():
        some = grids_BSPD if len(alike) == 1 else torch.stack([grids_BSPD[:, index] for index in indices], 1)
        pooled.update(zip(indices, _pool(some, plan.size, cells).unbind(1), strict=True))
    return [pooled[index] for index in range(len(plan.cells))]


def _pool(grids_BSPD: Tensor, size: Size, cells: Cells) -> Tensor:
    """Averages every grid spatially over what each cell covers: ``[B, S, P, D] -> [B, S, P', D]``."""
    if cells == size:
        return grids_BSPD
    if isinstance(cells, Uneven) or any(side % count for side, count in zip(size, cells, strict=True)):
        dtype = torch.promote_types(grids_BSPD.dtype, torch.float32)
        averages = torch.tensor(_averages(size, cells), dtype=dtype).to(grids_BSPD.device, non_blocking=True)
        return (averages @ grids_BSPD.to(dtype)).to(grids_BSPD.dtype)
    batch, kept = grids_BSPD.shape[:2]
    images = grids_BSPD.flatten(0, 1).unflatten(1, size).permute(0, 3, 1, 2)
    pooled = F.adaptive_avg_pool2d(images, cells)
    return pooled.flatten(2).transpose(1, 2).unflatten(0, (batch, kept))


@lru_cache(64)
def _averages(size: Size, cells: Cells) -> NDArray[np.float64]:
    """The weight of each place in each cell, ``[P', P]``; rows sum to 1."""
    areas = np.array([np.outer(rows, columns).ravel() for rows, columns in covered(size, cells)])
    return areas / areas.sum(1, keepdims=True)


def _squarest(cells: int) -> Size:
    height = next(n for n in range(int(cells**0.5), 0, -1) if cells % n == 0)
    return height, cells // height
