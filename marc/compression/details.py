"""The layout ``details``: cells of a video as they are, half of them typical and half of them unusual.

An average keeps what fills a scene and loses what is small or short: a line of text, a sign, a hand that presses a
button. And a model that was taught with every token has never seen one. So all that is kept are cells:

- *Anchors*, half of the budget. Events are cut into as many even stretches as there are anchors, or, where there is
  more than one for every grid, grids into regions; of each the cell is kept that is most like its mean. They say what
  fills a scene, how long it lasts and what comes next.
- *Details*, the rest, one after the other: always the cell that is least like whatever already stands for it, which
  is what was kept of its event (farthest-point traversal, Gonzalez 1985, from the anchors on). What stays in place for
  many grids is kept once, what moves now and then, and what is like the rest not at all.

Cells are compared by cosine, in some of their channels. Where events have shares of the budget, as a memory gives them
for a question, each event is treated so by itself. In which event the next detail is sought anew follows from where
the last one was, so that the host waits for the device once for each.

Shapes: T temporal grids, P cells a grid, X = T * P, D channels, C of these that are looked at, N tokens that are kept.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from marc.compression.cells import covering, token_count
from marc.compression.config import CompressionConfig
from marc.compression.merge import compress_planned
from marc.compression.plan import VideoPlan, event_lengths, plan_video
from marc.compression.rivals.merging import as_they_are, in_float32
from marc.compression.rivals.rule import EncodedVideo, KeptTokens
from marc.compression.shares import in_proportion, level

ANCHORS = 0.5
"""Part of the budget that goes to anchors."""
CHANNELS = 256
"""Channels in which cells are compared, at most: evenly spread over all."""


@dataclass(frozen=True)
class Choice:
    """What is kept of a video.

    Attributes:
        anchors: Places of typical cells, ``int64 [A]``.
        details: Places of unusual ones, ``int64 [N - A]``, the least like the rest first.
    """

    anchors: Tensor
    details: Tensor


def keep(video: EncodedVideo, count: int) -> KeptTokens:
    """Keeps so many cells, at their places.

    Args:
        video: With its events.
        count: At least 1.
    """
    choices = [choose(video, count)] if video.shares is None else list(_of_each_event(video, video.shares))
    return as_they_are(video, torch.cat([part for each in choices for part in (each.anchors, each.details)]))


@torch.no_grad()
def choose(video: EncodedVideo, count: int) -> Choice:
    """Decides what is kept; of equal cells the first.

    Args:
        video: With its events.
        count: Tokens. Each event has an anchor if there are enough.
    """
    step = ceil(video.tokens.shape[-1] / CHANNELS)
    tokens_TPC = in_float32(video.tokens[..., ::step])
    most = min(count, max(len(set(video.events)), round(ANCHORS * count)))
    config = CompressionConfig(visual_tokens=most)
    plan = plan_video(len(tokens_TPC), video.size, config, events=stretches(video.events, most))
    merged = compress_planned(tokens_TPC[None], plan)[0]
    assert merged.members is not None
    region_X = _regions(plan).to(tokens_TPC.device)[merged.members].flatten()
    unit_XC = F.normalize(tokens_TPC.flatten(0, 1), dim=-1)
    anchors_A = _most_typical(unit_XC, F.normalize(merged.flat, dim=-1), region_X)
    return Choice(anchors_A, _farthest(unit_XC, video, anchors_A, region_X, count - len(anchors_A)))


def _of_each_event(video: EncodedVideo, shares: Sequence[int]) -> Iterator[Choice]:
    """What is kept of each event by itself."""
    cells, lengths = video.tokens.shape[1], event_lengths(video.events, len(video.tokens))
    for end, length, share in zip(accumulate(lengths), lengths, shares, strict=True):
        choice = choose(EncodedVideo(video.tokens[end - length : end], video.size, [0] * length), share)
        first = (end - length) * cells
        yield Choice(choice.anchors + first, choice.details + first)


def stretches(events: Sequence[int], count: int) -> list[int]:
    """Events cut into even stretches, so many in all if there are grids enough: the number of each grid's.

    Each event has one at least, and the others go to the longest stretches, by D'Hondt's method.

    Args:
        events: Of each grid.
        count: Where there are more events, they stay whole.
    """
    lengths = event_lengths(events, len(events))
    parts = in_proportion(lengths, lengths, max(count, len(lengths)))
    cuts = [length for whole, own in zip(lengths, parts, strict=True) for length in level(whole, own, whole)]
    return [index for index, length in enumerate(cuts) for _ in range(length)]


def _regions(plan: VideoPlan) -> Tensor:
    """The region that each place of each grid that remains is in: ``int64 [S, P]``."""
    firsts = accumulate(map(token_count, plan.cells), initial=0)
    rows = zip(firsts, plan.cells, strict=False)
    return torch.tensor([[first + cell for cell in covering(plan.size, division)] for first, division in rows])


def _most_typical(unit_XC: Tensor, means_AC: Tensor, region_X: Tensor) -> Tensor:
    """The cell of each region that is most like its mean: ``int64 [A]``."""
    likeness_X = (unit_XC * means_AC[region_X]).sum(-1)
    order_X = likeness_X.argsort(descending=True, stable=True)
    order_X = order_X[region_X[order_X].argsort(stable=True)]
    sizes_A = torch.bincount(region_X, minlength=len(means_AC))
    return order_X[sizes_A.cumsum(0) - sizes_A]


def _farthest(unit_XC: Tensor, video: EncodedVideo, anchors_A: Tensor, region_X: Tensor, count: int) -> Tensor:
    """Places of unusual cells: ``int64 [count]``, the least represented first.

    Args:
        unit_XC: Of every place.
        video: Whose events these belong to.
        anchors_A: Which are kept already.
        region_X: Whose anchor stands for each place at first; so does every other one of its event.
        count: How many.
    """
    likeness_X = (unit_XC * unit_XC[anchors_A][region_X]).sum(-1)
    lengths = [video.tokens.shape[1] * length for length in event_lengths(video.events, len(video.tokens))]
    ends = list(accumulate(lengths))
    owns = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    for own in owns:
        inside = anchors_A[(anchors_A >= own.start) & (anchors_A < own.stop)]
        if len(inside):
            likeness_X[own] = torch.maximum(likeness_X[own], (unit_XC[own] @ unit_XC[inside].T).amax(dim=1))
    likeness_X[anchors_A] = torch.inf
    kept = []
    for _ in range(count):
        place = int(likeness_X.argmin())
        own = owns[bisect_right(ends, place)]
        likeness_X[own] = torch.maximum(likeness_X[own], unit_XC[own] @ unit_XC[place])
        likeness_X[place] = torch.inf
        kept.append(place)
    return torch.tensor(kept, dtype=torch.long, device=unit_XC.device)
