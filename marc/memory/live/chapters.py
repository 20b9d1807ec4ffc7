"""What becomes of events for which there is no more room: neighbours that are alike are joined to chapters.

Which two are joined is decided by Ward's criterion (1963) over neighbours: the joined pair loses least of what tells
events apart,

    cost = n m / (n + m) * |a - b|^2

for n and m events of the mean directions a and b. So the nearest neighbours go first, and of equally near ones those
that stand for fewer events: chapters grow evenly where everything looks alike.

Shape legend: E events, D embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marc.memory.live.options import LiveOptions
from marc.memory.live.snapshot import LiveEvent, LiveState
from marc.types import FRAMES_PER_GRID


def has_room(state: LiveState, options: LiveOptions) -> bool:
    """Whether no events need be joined; two always have room."""
    if len(state.events) <= 2:
        return True
    return len(state.events) <= options.most_events and state.size <= options.memory_mib * 2**20


def nearest_pair(events: Sequence[LiveEvent], whole_after: float) -> int:
    """The index of the event that is to be joined with the next one.

    Args:
        events: Two at least, in time order.
        whole_after: Events that end later are joined only if all others are one already.
    """
    parts_E = np.array([event.parts for event in events], dtype=np.float64)
    vectors_ED = np.stack([event.vector for event in events])
    apart = 2 - 2 * np.einsum("ed,ed->e", vectors_ED[:-1], vectors_ED[1:]).astype(np.float64)
    cost = parts_E[:-1] * parts_E[1:] / (parts_E[:-1] + parts_E[1:]) * np.maximum(apart, 1e-9)
    old = sum(event.span.end <= whole_after for event in events)
    return int(cost[: old - 1].argmin() if old > 1 else cost.argmin())


def joined(
    first: LiveEvent, second: LiveEvent, number: int, most_frames: int
) -> tuple[dict[str, Any], NDArray[np.float32], list[bytes]]:
    """The record of the chapter of two neighbours.

    Args:
        first: The earlier one.
        second: The later one.
        number: Of the chapter.
        most_frames: Frames that are kept of both.

    Returns:
        Its head, its vector and its pictures.
    """
    longer = max(first, second, key=lambda each: each.span.duration)
    alike = [each for each in (first, second) if each.size == longer.size]  # a chapter has frames of one size
    pictures = [picture for each in alike for picture in each.record.pictures()[1:]]
    seconds = [at for each in alike for at in each.seconds]
    kept = pairs_kept(len(seconds), most_frames)
    head = {
        "kind": "event",
        "number": number,
        "start": first.span.start,
        "end": second.span.end,
        "parts": first.parts + second.parts,
        "dropped": first.dropped + second.dropped + len(first.seconds) + len(second.seconds) - len(kept),
        "seconds": [seconds[index] for index in kept],
        "size": list(longer.size),
        "replaces": [first.number, second.number],
    }
    weighed = first.parts * first.vector + second.parts * second.vector
    length = float(np.linalg.norm(weighed))
    vector = (weighed / length).astype(np.float32) if length > 0 else longer.vector
    return head, vector, [longer.thumbnail(), *(pictures[index] for index in kept)]


def pairs_kept(count: int, most: int) -> list[int]:
    """Indices of at most so many of a number of frames, in pairs, evenly chosen."""
    pairs = np.arange(count // FRAMES_PER_GRID)
    wanted = min(len(pairs), most // FRAMES_PER_GRID)
    chosen = pairs[((np.arange(wanted) + 0.5) * len(pairs) / max(wanted, 1)).astype(int)]
    return [FRAMES_PER_GRID * int(pair) + offset for pair in chosen for offset in range(FRAMES_PER_GRID)]
