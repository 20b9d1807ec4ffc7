"""How a budget of visual tokens is shared out, to the last one: pure functions of counts.

More budget never takes a token from anybody (divisor methods are house-monotone), so that a larger budget shows
everything at least as finely as a smaller one.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from math import ceil


def level(budget: int, count: int, most: int) -> list[int]:
    """Equal parts of a budget, of which the first have one token more if it cannot be divided.

    Args:
        budget: At least ``count``.
        count: How many parts.
        most: Of one part.
    """
    each, more = divmod(min(budget, count * most), count)
    return [each + (index < more) for index in range(count)]


def event_tokens(
    lengths: Sequence[int], cost: int, budget: int, *, shares: Sequence[int] | None, most_grids: int
) -> list[int]:
    """Visual tokens of each event.

    Without shares all events are alike up to a whole grid each; then the event whose grids stand for the longest
    stretches gets another, one after the other. Shares are kept as they are, or scaled down to the budget; what an
    event has no grids for goes to the others.

    Args:
        lengths: Temporal grids of each event.
        cost: Tokens of a whole grid.
        budget: Tokens of all, at least one for each.
        shares: Wished for by each event, at least 1.
        most_grids: In how many grids there is room, at least one for each.
    """
    if shares is None:
        equal = level(budget, len(lengths), cost)
        return _with_more_grids(equal, lengths, cost, min(budget, most_grids * cost))
    wished = [min(length, ceil(share / cost)) for length, share in zip(lengths, shares, strict=True)]
    room = [cost] * len(lengths)
    for most in (wished, lengths):
        room = _with_more_grids(room, most, cost, most_grids * cost)
    return in_proportion(shares, room, min(budget, sum(shares)))


def _with_more_grids(tokens: Sequence[int], lengths: Sequence[int], cost: int, budget: int) -> list[int]:
    """Tokens of events when what is left of a budget went to further grids, one event after the other.

    Args:
        tokens: Of each event, of whole grids if there is anything left.
        lengths: Most grids of each event.
        cost: Tokens of a whole grid.
        budget: Of all.
    """
    more, left = list(tokens), budget - sum(tokens)
    waiting = [(-length * cost / own, index) for index, (length, own) in enumerate(zip(lengths, tokens, strict=True))]
    heapq.heapify(waiting)
    while left > 0 and waiting:
        _, index = heapq.heappop(waiting)
        if more[index] < lengths[index] * cost:
            more[index] += min(cost, left)
            left -= cost
            heapq.heappush(waiting, (-lengths[index] * cost / more[index], index))
    return more


def in_proportion(shares: Sequence[int], room: Sequence[int], budget: int) -> list[int]:
    """One token each, and the others by D'Hondt's method, within everybody's room.

    Args:
        shares: In proportion to which.
        room: Most of each.
        budget: Of all.
    """
    tokens = [1] * len(shares)
    waiting = [(-share / 2, index) for index, share in enumerate(shares) if room[index] > 1]
    heapq.heapify(waiting)
    for _ in range(budget - len(shares)):
        if not waiting:
            break
        _, index = waiting[0]
        tokens[index] += 1
        if tokens[index] < room[index]:
            heapq.heapreplace(waiting, (-shares[index] / (tokens[index] + 1), index))
        else:
            heapq.heappop(waiting)
    return tokens
