"""The layout ``details``: events pooled as in the layout ``events``, and single cells that this does not show.

Pooling keeps what fills a scene and loses what is small or short: a line of text, a sign, a hand that presses a
button. So a part of the budget goes to pooled events, and the rest to cells as they are, one after the other: always
the one that is least like whatever already stands for it, which is the token of its event into which it was pooled, or
a cell of its event that was kept (farthest-point traversal, Gonzalez 1985, from the pooled tokens on). What stays in
place for many grids is kept once, what moves now and then, and what is like the rest not at all.

Shapes: T temporal grids, P cells a grid, D channels, N tokens that are kept.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from marc.compression.cells import centers, covering, token_count
from marc.compression.config import CompressionConfig
from marc.compression.merge import compress_planned
from marc.compression.plan import VideoPlan, event_lengths, plan_video
from marc.compression.rivals.rule import EncodedVideo, KeptTokens

POOLED = 0.25
"""Part of the budget that goes to pooled events."""


@dataclass(frozen=True)
class Choice:
    """What is kept of a video.

    Attributes:
        pooled: The tokens of pooled events, ``[N, D]``.
        places: Where these stand, ``int64 [N]``.
        stands_for: Which of them each cell was pooled into, ``int64 [T * P]``.
        details: Cells that are kept as they are, ``int64 [M]``, the least like the rest first.
    """

    pooled: Tensor
    places: Tensor
    stands_for: Tensor
    details: Tensor


def keep(video: EncodedVideo, count: int, pooled: float = POOLED) -> KeptTokens:
    """Keeps so many tokens, at their places; pooled ones stand at the centre of what they average.

    Args:
        video: With its events.
        count: At least 1.
        pooled: See `choose`.
    """
    choice = choose(video, count, pooled)
    tokens_ND = torch.cat((choice.pooled, video.tokens.flatten(0, 1)[choice.details]))
    places_N, order_N = torch.cat((choice.places, choice.details)).sort()
    return KeptTokens(tokens_ND[order_N], places_N)


def choose(video: EncodedVideo, count: int, pooled: float = POOLED) -> Choice:
    """Decides what is kept.

    Args:
        video: With its events.
        count: Tokens.
        pooled: Part of them that goes to pooled events, each of which has one at least if there are enough.
    """
    for_events = min(count, max(len(set(video.events)), round(pooled * count)))
    config = CompressionConfig(visual_tokens=for_events)
    plan = plan_video(len(video.tokens), video.size, config, events=video.events)
    events, device = compress_planned(video.tokens[None], plan)[0], video.tokens.device
    assert events.members is not None
    places, stands_for = _places(plan).to(device), _pooled_into(plan).to(device)[events.members]
    details_M = _farthest(video, events.flat, stands_for.flatten(), places, count - len(places))
    return Choice(events.flat, places, stands_for.flatten(), details_M)


def _places(plan: VideoPlan) -> Tensor:
    """Where the pooled tokens of a plan stand: ``int64 [N]``."""
    height, width = plan.size
    return torch.tensor(
        [
            int(center) * height * width + row * width + column
            for center, division in zip(plan.centers, plan.cells, strict=True)
            for row, column in centers(plan.size, division)
        ]
    )


def _pooled_into(plan: VideoPlan) -> Tensor:
    """For each grid that remains the token into which each place of it was pooled: ``int64 [S, P]``."""
    firsts = accumulate(map(token_count, plan.cells), initial=0)
    rows = zip(firsts, plan.cells, strict=False)
    return torch.tensor([[first + cell for cell in covering(plan.size, division)] for first, division in rows])


@torch.no_grad()
def _farthest(video: EncodedVideo, pooled_ND: Tensor, stands_for_X: Tensor, taken_N: Tensor, count: int) -> Tensor:
    """Places of the cells that are kept as they are: ``int64 [count]``, the least represented first.

    Args:
        video: Of X = T * P places.
        pooled_ND: The pooled tokens.
        stands_for_X: Which of them stands for each place at first.
        taken_N: Where they stand themselves, and no cell is kept.
        count: How many.
    """
    exact = torch.promote_types(pooled_ND.dtype, torch.float32)
    tokens_XD = F.normalize(video.tokens.flatten(0, 1).to(exact), dim=-1)
    likeness_X = (tokens_XD * F.normalize(pooled_ND.to(exact), dim=-1)[stands_for_X]).sum(-1)
    likeness_X[taken_N] = torch.inf
    lengths = [video.tokens.shape[1] * length for length in event_lengths(video.events, len(video.tokens))]
    ends = list(accumulate(lengths))
    kept = []
    for _ in range(count):
        place = int(likeness_X.argmin())
        event = bisect_right(ends, place)
        own = slice(ends[event] - lengths[event], ends[event])
        likeness_X[own] = torch.maximum(likeness_X[own], tokens_XD[own] @ tokens_XD[place])
        likeness_X[place] = torch.inf
        kept.append(place)
    return torch.tensor(kept, dtype=torch.long, device=tokens_XD.device)
