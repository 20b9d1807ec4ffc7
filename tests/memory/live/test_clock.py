"""The time of a source never falls, and what was not seen is a gap."""

import pytest

from marc.memory.live.clock import SourceClock


def times(clock: SourceClock, *seconds: float) -> list[float]:
    return [round(clock.time_of(second), 3) for second in seconds]


def test_time_begins_with_the_first_frame():
    assert times(SourceClock(5), 1000.0, 1000.5, 1001.0) == [0.0, 0.5, 1.0]


def test_a_clock_that_falls_back_goes_on_behind_the_last_frame():
    clock = SourceClock(5)
    assert times(clock, 100, 101, 3, 4) == [0, 1, 2, 3]
    (gap,) = clock.take_gaps()
    assert (gap.start, gap.end) == (2, 2)
    assert "fell back" in gap.why


def test_a_little_disorder_is_none():
    clock = SourceClock(5)
    assert times(clock, 0, 0.2, 0.15, 0.4) == [0, 0.2, 0.2, 0.4]
    assert not clock.take_gaps()


def test_a_stretch_without_frames_is_a_gap_and_time_goes_on():
    clock = SourceClock(5)
    assert times(clock, 0, 1, 61, 62) == [0, 1, 61, 62]
    (gap,) = clock.take_gaps()
    assert (gap.start, gap.end) == (1, 61)


def test_a_source_that_was_lost_comes_back_with_a_clock_of_its_own():
    clock = SourceClock(5)
    times(clock, 50, 51)
    clock.restart(31.0)
    assert times(clock, 7, 8) == [31, 32]
    assert [(gap.start, gap.end) for gap in clock.take_gaps()] == [(1, 31)]


def test_a_memory_that_goes_on_begins_behind_what_it_has_seen():
    assert times(SourceClock(5, latest=10.0), 99, 100) == [10.04, 11.04]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_no_time_is_refused(wrong):
    with pytest.raises(ValueError, match="number of seconds"):
        SourceClock(5).time_of(wrong)


@pytest.mark.parametrize(
    ("end", "longest", "expected"),
    [(None, 0.5, 2.4), (None, 0.1, 2.1), (102.25, 0.5, 2.25), (104.0, 0.5, 4.0), (101.0, 0.5, 2.4), (900.0, 0.5, 2.4)],
)
def test_the_last_frame_lasts_until_a_known_end_or_as_long_as_the_one_before(end, longest, expected):
    clock = SourceClock(5)
    times(clock, 100, 101.6, 102)
    assert clock.finish(end, longest) == clock.latest == pytest.approx(expected)


def test_a_source_of_which_nothing_came_ends_where_it_begins():
    assert SourceClock(5).finish(30.0, 0.5) == 0
