"""FastVID: segments of like grids, of each the cells that receive attention and anchors that the rest merges into.

Source: Shen et al., arXiv 2503.11187; https://github.com/LunarShen/FastVID (its variant and settings for Qwen2.5-VL).

1. Segments: cuts lie between grids whose means have a cosine similarity below 0.84, and between the 7 least similar
   pairs in any case. A segment has its part of the count by its length.
2. Of a segment 0.4 of the tokens, at least one, are *context* and the others *salient*. Grids whose successor in the
   segment has a similarity of 0.95 or more are passed over; every fourth of the rest, counted from the last, is an
   *anchor*. Salient tokens are shared out equally among the rest, context ones among the anchors, of half an anchor's
   cells at most.
3. The salient tokens of a grid are the cells that receive most attention. The context tokens of an anchor are the
   density peaks of 4 neighbours among its other cells.
4. For each anchor: every cell of the segment that is neither salient nor one of its context tokens belongs to the
   most similar (cosine) of these; a context token becomes ``w x + (1 - w) m``, where m is the mean of what belongs to
   it, n cells, and ``w = max(0.6, 1 / (n + 1))``.

Differences: the attention is the mean that a cell receives; the authors approximate it by one mean query. Lengths are
turned into counts by largest remainder, and what a grid has no room for goes to the others of its segment, so that
the count is met. No noise is added to densities.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from marc.compression.rivals.clustering import density_peaks
from marc.compression.rivals.merging import Sums, fill, in_float32, largest_remainder, weighted_sums
from marc.compression.rivals.rule import EncodedVideo, KeptTokens

CUTS = 7
CUT_BELOW = 0.84
PASSED_OVER = 0.95
CONTEXT = 0.4
ANCHOR_EVERY = 4
NEIGHBOURS = 4
LEAST_OWN = 0.6


def keep(video: EncodedVideo, count: int) -> KeptTokens:
    """Keeps salient tokens, and context tokens into which the rest of their segment merges."""
    assert video.attention is not None
    cells = video.tokens.shape[1]
    with torch.no_grad():
        tokens_TPD = in_float32(video.tokens)
        means_TD = F.normalize(tokens_TPD.mean(dim=1), dim=-1)
        likeness = (means_TD[:-1] * means_TD[1:]).sum(dim=1).tolist()
        segments = _segments(likeness)
        parts = []
        for segment, own in zip(
            segments, largest_remainder([len(segment) for segment in segments], count), strict=True
        ):
            inside = slice(segment.start, segment.stop)
            salient, context = _shared_out(likeness[segment.start : segment.stop - 1], own, cells)
            kept = _of_segment(tokens_TPD[inside], video.attention[inside], salient, context)
            parts += [sums.moved(segment.start * cells) for sums in kept]
    return weighted_sums(video, parts)


def _segments(likeness: Sequence[float]) -> list[range]:
    """Runs of grids, given the similarity of each grid with the next."""
    least_like = sorted(range(len(likeness)), key=lambda index: likeness[index])[:CUTS]
    cuts = {index for index, similarity in enumerate(likeness) if similarity < CUT_BELOW} | set(least_like)
    edges = [0, *(index + 1 for index in sorted(cuts)), len(likeness) + 1]
    return [range(start, end) for start, end in pairwise(edges)]


def _shared_out(likeness: Sequence[float], count: int, cells: int) -> tuple[list[int], list[int]]:
    """Salient and context tokens of each grid of a segment, given the similarity of each grid with the next."""
    grids = len(likeness) + 1
    shown = [grid for grid in range(grids) if grid == grids - 1 or likeness[grid] < PASSED_OVER]
    anchors = shown[::-1][::ANCHOR_EVERY]
    context, salient = [0] * grids, [0] * grids
    for grid, own in zip(anchors, fill(max(1, int(CONTEXT * count)), [cells // 2] * len(anchors)), strict=True):
        context[grid] = own
    left = count - sum(context)
    passed_over = [grid for grid in range(grids) if grid not in shown]
    for some in (shown, passed_over):
        for grid, own in zip(some, fill(left, [cells - context[grid] for grid in some]), strict=True):
            salient[grid] = own
        left = count - sum(context) - sum(salient)
    return salient, context


def _of_segment(
    tokens_TPD: Tensor, attention_TP: Tensor, salient: Sequence[int], context: Sequence[int]
) -> list[Sums]:
    """What is kept of a segment whose first cell has the place 0."""
    cells = tokens_TPD.shape[1]
    order_TP = attention_TP.argsort(dim=1, descending=True, stable=True)
    kept = [order_P[:own] + grid * cells for grid, (order_P, own) in enumerate(zip(order_TP, salient, strict=True))]
    parts = [Sums.unchanged(torch.cat(kept))]
    tokens = tokens_TPD.flatten(0, 1)
    merges = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
    merges[parts[0].places] = False
    for grid, own in enumerate(context):
        if own:
            rest = order_TP[grid, salient[grid] :].sort().values
            peaks, _ = density_peaks(tokens_TPD[grid, rest], own, NEIGHBOURS)
            parts.append(_anchored(tokens, rest[peaks] + grid * cells, merges))
    return parts


def _anchored(tokens: Tensor, context: Tensor, merges: Tensor) -> Sums:
    """Context tokens with what belongs to them.

    Args:
        tokens: Of the segment, ``[T * P, D]``.
        context: Places of the context tokens.
        merges: Which tokens are not salient, ``[T * P]``.
    """
    others = merges.clone()
    others[context] = False
    members = others.nonzero().flatten()
    belongs = (tokens @ F.normalize(tokens[context], dim=-1).T).argmax(dim=1)[members]
    counts = torch.bincount(belongs, minlength=len(context))
    own = (1 / (counts + 1)).clamp(min=LEAST_OWN)
    alone = Sums.unchanged(context)
    return Sums(
        context,
        torch.cat([context, members]),
        torch.cat([alone.targets, belongs]),
        torch.cat([own, ((1 - own) / counts)[belongs]]),
    )
