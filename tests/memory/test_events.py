from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marc.memory.descriptors import Descriptors
from marc.memory.events import (
    at_pictures,
    cut_into_events,
    evenly_inside,
    events_between,
    join_short,
    long_shots,
    split_long,
    strongest_change,
)
from marc.types import Event

durations = st.floats(0.04, 500, allow_nan=False)
boundary_lists = st.lists(st.floats(-10, 510, allow_nan=False), max_size=40)


def assert_covers(events: list[Event], duration: float) -> None:
    assert events[0].start == 0
    assert events[-1].end == duration
    assert all(event.end == after.start for event, after in pairwise(events))


def descriptors_with_steps(duration: float, steps: list[float]) -> Descriptors:
    """One number a second that rises by one at every step."""
    seconds = np.arange(0, duration, 1.0)
    return Descriptors(seconds, np.searchsorted(steps, seconds, side="right")[:, None].astype(np.float64))


@given(durations, boundary_lists)
def test_events_cover_the_video(duration: float, boundaries: list[float]):
    events = events_between(boundaries, duration)
    assert_covers(events, duration)
    assert {event.start for event in events[1:]} == {b for b in boundaries if 0 < b < duration}


@given(durations, boundary_lists, st.floats(0, 20))
def test_no_event_stays_short_unless_it_is_the_video(duration: float, boundaries: list[float], shortest: float):
    events = join_short(events_between(boundaries, duration), shortest)
    assert_covers(events, duration)
    assert len(events) == 1 or min(event.duration for event in events) >= shortest


def test_long_events_keep_their_boundaries_when_short_ones_join():
    events = join_short(events_between([10, 10.2, 20, 29.9], 30), 2)
    assert events == [Event(0, 10), Event(10, 20), Event(20, 30)]


@given(durations, st.floats(0, 4), st.floats(8.5, 60), st.integers(0, 5))
def test_no_event_stays_long(duration: float, shortest: float, longest: float, seed: int):
    vectors = np.random.default_rng(seed).normal(size=(int(duration) + 1, 3))
    descriptors = Descriptors(np.arange(len(vectors), dtype=np.float64), vectors)
    events = split_long([Event(0, duration)], descriptors, min_seconds=shortest, max_seconds=longest)
    assert_covers(events, duration)
    assert max(event.duration for event in events) <= longest
    assert len(events) == 1 or min(event.duration for event in events) >= shortest - 1e-6


def test_a_long_event_is_split_where_it_changes():
    descriptors = descriptors_with_steps(60, [13, 31, 44])
    events = split_long([Event(0, 60)], descriptors, min_seconds=2, max_seconds=20)
    assert [event.start for event in events] == [0, 12.5, 30.5, 43.5], "half way between two descriptors"


def test_a_long_event_without_change_is_split_evenly():
    still = Descriptors(np.arange(64.0), np.full((64, 5), 200, np.uint8))
    for descriptors in (still, Descriptors.empty()):
        events = split_long([Event(0, 64)], descriptors, min_seconds=2, max_seconds=20)
        assert [event.duration for event in events] == [16] * 4


@given(st.integers(0, 1000), st.integers(6, 30))
def test_the_strongest_change_has_the_largest_scatter_between_its_parts(seed: int, count: int):
    vectors = np.random.default_rng(seed).normal(size=(count, 4))
    time = strongest_change(Event(0, count), Descriptors(np.arange(count, dtype=float), vectors), 2)

    def scatter(k: int) -> float:
        gap = vectors[:k].mean(axis=0) - vectors[k:].mean(axis=0)
        return k * (count - k) / count * float(gap @ gap)

    allowed = [k for k in range(1, count) if 2 <= k - 0.5 <= count - 2]
    assert scatter(round(time + 0.5)) == pytest.approx(max(map(scatter, allowed)))


def test_pictures_of_bytes_do_not_overflow():
    vectors = np.repeat(np.array([[255], [0]], np.uint8), 30, axis=0)
    assert strongest_change(Event(0, 60), Descriptors(np.arange(60.0), vectors), 2) == 29.5


def test_boundaries_become_events():
    descriptors = descriptors_with_steps(45, [30])
    assert cut_into_events([11.5, 10.0], 45.0, descriptors, min_seconds=2, max_seconds=20) == [
        Event(0, 10),
        Event(10, 29.5),
        Event(29.5, 45),
    ]


def test_limits_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="twice min_seconds"):
        cut_into_events([], 45.0, Descriptors.empty(), min_seconds=5, max_seconds=8)


def test_frames_lie_at_the_centres_of_equal_parts():
    np.testing.assert_allclose(evenly_inside(Event(10, 14), 4), [10.5, 11.5, 12.5, 13.5])


def test_boundaries_move_to_where_a_picture_begins_if_that_is_near():
    events = [Event(0, 7), Event(7, 15), Event(15, 40)]
    assert at_pictures(events, [], 4) == events
    assert at_pictures(events, [0, 5, 13, 24, 38], 4) == [Event(0, 5), Event(5, 13), Event(13, 40)]
    assert at_pictures(events, [0, 30], 4) == events, "none is near"
    assert at_pictures(events, [0, 11], 4) == [Event(0, 11), Event(11, 15), Event(15, 40)]
    assert at_pictures([Event(0, 9)], [0, 5], 4) == [Event(0, 9)], "the end stays"


@given(
    st.lists(st.floats(0.1, 20), min_size=1, max_size=8), st.lists(st.floats(0, 100), max_size=20), st.floats(0, 10)
)
def test_moved_boundaries_still_cut_the_whole_video_in_order(lengths, starts, within):
    ends = np.cumsum(lengths).tolist()
    events = [Event(start, end) for start, end in zip([0.0, *ends], ends, strict=False)]
    moved = at_pictures(events, sorted(starts), within)
    assert (moved[0].start, moved[-1].end, len(moved)) == (0.0, events[-1].end, len(events))
    assert all(one.end == other.start for one, other in pairwise(moved))
    assert all(abs(one.start - other.start) <= within for one, other in zip(moved, events, strict=True))


@given(boundary_lists, durations)
def test_descriptors_outside_of_long_shots_decide_nothing(boundaries: list[float], duration: float):
    limits = {"min_seconds": 2.0, "max_seconds": 20.0}
    descriptors = descriptors_with_steps(duration, [duration / 3, duration / 2])
    shots = long_shots(boundaries, duration, **limits)
    assert all(shot.duration > 20 for shot in shots)
    inside = np.array([any(shot.start <= second < shot.end for shot in shots) for second in descriptors.seconds], bool)
    some = Descriptors(descriptors.seconds[inside], descriptors.vectors[inside])
    assert cut_into_events(boundaries, duration, some, **limits) == cut_into_events(
        boundaries, duration, descriptors, **limits
    )
