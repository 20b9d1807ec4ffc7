"""Shot boundaries to events: the stretches of a video that the memory embeds and retrieves.

A detector's boundaries are not yet events. Very short shots (a flash frame, a fast montage) are joined with what
follows, and a long shot (a room scan, a surveillance camera, a screen recording) is split where its picture changes
most, so that no video becomes one useless event. The limits fit a model that reads 64 frames at 1 frame a second from
three events: an event is at least one temporal grid of two frames and at most a third of the frames.

All functions are pure. Times are seconds from the start of the video, events half-open.

Shape legend: S descriptors, D numbers in each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from marc.memory.descriptors import Descriptors
from marc.types import Event

MIN_SECONDS = 2.0
MAX_SECONDS = 20.0


def cut_into_events(
    boundaries: Iterable[float],
    duration: float,
    descriptors: Descriptors,
    *,
    min_seconds: float = MIN_SECONDS,
    max_seconds: float = MAX_SECONDS,
) -> list[Event]:
    """The events of a video: what lies between the boundaries, joined where short and split where long.

    Args:
        boundaries: First times of the later shots, in seconds.
        duration: Length of the video in seconds.
        descriptors: What the video looks like at which time; may be empty.
        min_seconds: Shorter shots are joined with their neighbours; only a shorter video gives a shorter event.
        max_seconds: Longer shots are split at their strongest changes.

    Returns:
        Events in time order that cover ``[0, duration)`` without gaps, each at most ``max_seconds`` long.

    Raises:
        ValueError: If the limits contradict each other.
    """
    check_limits(min_seconds, max_seconds)
    events = join_short(events_between(boundaries, duration), min_seconds)
    return split_long(events, descriptors, min_seconds=min_seconds, max_seconds=max_seconds)


def long_shots(
    boundaries: Iterable[float], duration: float, *, min_seconds: float = MIN_SECONDS, max_seconds: float = MAX_SECONDS
) -> list[Event]:
    """The shots that `cut_into_events` would split: only what they look like decides anything there."""
    shots = join_short(events_between(boundaries, duration), min_seconds)
    return [shot for shot in shots if shot.duration > max_seconds]


def events_between(boundaries: Iterable[float], duration: float) -> list[Event]:
    """The events that the boundaries inside ``(0, duration)`` cut ``[0, duration)`` into."""
    inner = sorted({boundary for boundary in boundaries if 0 < boundary < duration})
    return [Event(start, end) for start, end in zip([0.0, *inner], [*inner, duration], strict=True)]


def join_short(events: Sequence[Event], min_seconds: float) -> list[Event]:
    """Joins adjacent events until each is at least ``min_seconds`` long.

    A short event is joined with the next one, the last with the one before. What is left is shorter only if it is the
    whole video.
    """
    joined: list[Event] = []
    for event in events:
        if joined and joined[-1].duration < min_seconds:
            joined[-1] = Event(joined[-1].start, event.end)
        else:
            joined.append(event)
    if len(joined) > 1 and joined[-1].duration < min_seconds:
        last = joined.pop()
        joined[-1] = Event(joined[-1].start, last.end)
    return joined


def split_long(
    events: Iterable[Event],
    descriptors: Descriptors,
    *,
    min_seconds: float = MIN_SECONDS,
    max_seconds: float = MAX_SECONDS,
) -> list[Event]:
    """Splits events at their strongest change until each is at most ``max_seconds`` long.

    Args:
        events: Events in time order.
        descriptors: What the video looks like at which time; may be empty.
        min_seconds: No part becomes shorter.
        max_seconds: No part stays longer; at least ``2 * min_seconds``.

    Raises:
        ValueError: If the limits contradict each other.
    """
    check_limits(min_seconds, max_seconds)
    parts: list[Event] = []
    waiting = list(events)[::-1]
    while waiting:
        event = waiting.pop()
        if event.duration <= max_seconds:
            parts.append(event)
        else:
            time = strongest_change(event, descriptors, min_seconds)
            waiting += [Event(time, event.end), Event(event.start, time)]
    return parts


def at_pictures(events: Sequence[Event], starts: Sequence[float], within: float) -> list[Event]:
    """Moves boundaries to where the nearest picture begins, if that is near: nothing changes in between.

    Args:
        events: Events in time order, without gaps.
        starts: When pictures begin, ascending, where the file says so; else empty.
        within: Most seconds by which a boundary is moved.
    """
    if not starts:
        return list(events)
    begun = np.array(starts)
    bounds = [events[0].start]
    for event in events[1:]:
        nearest = float(begun[np.abs(begun - event.start).argmin()])
        near = abs(nearest - event.start) <= within and bounds[-1] < nearest < event.end
        bounds.append(nearest if near else event.start)
    return [Event(start, end) for start, end in zip(bounds, [*bounds[1:], events[-1].end], strict=True)]


def strongest_change(event: Event, descriptors: Descriptors, margin: float) -> float:
    """The time that best divides an event into two parts that each look alike inside.

    The split of n descriptors before the k-th is worth the scatter between the two parts,

        gain(k) = k (n - k) / n * |mean(first k) - mean(last n - k)|^2,

    the statistic of binary segmentation (Scott and Knott 1974). The split lies half way between two descriptors. Where
    nothing changes, or nothing is known, it is the middle of the event.

    Args:
        event: What to split, longer than twice the margin.
        descriptors: What the video looks like at which time.
        margin: Seconds that must stay on either side.
    """
    first, end = np.searchsorted(descriptors.seconds, [event.start, event.end])
    seconds_S, vectors_SD = descriptors.seconds[first:end], descriptors.vectors[first:end]
    splits_S = (seconds_S + np.roll(seconds_S, 1)) / 2
    allowed_S = (splits_S >= event.start + margin) & (splits_S <= event.end - margin)
    allowed_S[:1] = False  # nothing lies before the first descriptor
    if not allowed_S.any():
        return event.middle
    centred_SD = vectors_SD - vectors_SD.mean(axis=0, dtype=np.float64)
    before_SD = (
        np.cumsum(centred_SD, axis=0) - centred_SD
    )  # sums before each split; those after it are their negatives
    count, k_S = len(seconds_S), np.arange(len(seconds_S))
    weight_S = count / np.maximum(k_S * (count - k_S), 1)
    gain_S = np.where(allowed_S, weight_S * np.square(before_SD).sum(axis=1), -np.inf)
    if gain_S.max() <= _NO_CHANGE * np.square(vectors_SD, dtype=np.float64).sum():
        return event.middle
    return float(splits_S[int(gain_S.argmax())])


def evenly_inside(event: Event, count: int) -> NDArray[np.float64]:
    """The centres of ``count`` equal parts of an event, in seconds: never on a boundary."""
    return event.start + event.duration * (np.arange(count) + 0.5) / count


_NO_CHANGE = 1e-12  # of the descriptors' energy: rounding, not change


def check_limits(min_seconds: float, max_seconds: float) -> None:
    """Refuse limits that not every event can keep.

    Raises:
        ValueError: If they contradict each other.
    """
    if min_seconds < 0 or not max_seconds > 0 or max_seconds < 2 * min_seconds:
        raise ValueError(
            f"min_seconds={min_seconds} and max_seconds={max_seconds} contradict each other: max_seconds must be "
            "positive and at least twice min_seconds, so that every longer event can be split"
        )
