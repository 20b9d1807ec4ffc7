"""The level arena is drawn from seeds alone, and what is drawn keeps its promises."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from marc.world.arena.scenes import GRADUAL, LONGEST, MOST_GRIDS, ArenaLimits, Mark, sample_arena

indices = st.integers(0, 10**6)


@given(indices)
@settings(max_examples=60, deadline=None)
def test_a_video_keeps_to_the_level(index: int) -> None:
    video = sample_arena("test", 0, index)
    assert video == sample_arena("test", 0, index)
    assert 2 <= len(video.events) <= 40 and video.frame_count <= 2 * MOST_GRIDS
    assert len({event.background for event in video.events}) == len(video.events)
    assert all(1 <= event.grids <= LONGEST for event in video.events)
    for (one, two), transition in zip(pairwise(video.events), video.transitions, strict=True):
        assert transition == "cut" or min(one.grids, two.grids) >= GRADUAL


@given(indices)
@settings(max_examples=60, deadline=None)
def test_details_are_seen_in_clear_grids_and_in_a_cell_of_their_own(index: int) -> None:
    video = sample_arena("test", 0, index)
    for number, event in enumerate(video.events):
        clear = video.clear_grids(number)
        cells = [(mark.row, mark.column) for mark in event.marks]
        assert len(set(cells)) == len(cells)
        assert all(0 <= row < video.rows and 0 <= column < video.columns for row, column in cells)
        for mark in event.marks:
            assert 1 <= mark.grids <= 2 and set(mark.shown) <= set(clear)
        assert len(event.marks_of("sign")) <= 1 and len(event.marks_of("star")) <= 1
        assert 1 <= len({actor.shape for actor in event.actors}) == len(event.actors) <= 3
        assert len({actor.colour for actor in event.actors}) == len(event.actors)


@given(indices)
@settings(max_examples=60, deadline=None)
def test_one_button_is_pressed_as_the_light_goes_on(index: int) -> None:
    for event in sample_arena("test", 1, index).events:
        buttons = event.marks_of("button")
        assert len({button.value for button in buttons}) == len(buttons)
        if event.switch is None:
            assert event.cause is None
        else:
            assert event.cause is not None and event.cause.grids == 1
            assert [button for button in buttons if event.switch in button.shown] == [event.cause]
            assert len(buttons) >= 2, "others distract"


def test_sightings_are_those_of_the_marks_and_actors() -> None:
    video = sample_arena("test", 0, 0)
    for index, event in enumerate(video.events):
        seen = list(video.sightings(index))
        begin = video.first_grid(index)
        marks = {(mark, begin + grid, mark.row, mark.column) for mark in event.marks for grid in mark.shown}
        assert {(s.thing, s.grid, s.row, s.column) for s in seen if isinstance(s.thing, Mark)} == marks
        assert {s.thing for s in seen} - set(event.marks) <= set(event.actors)
        assert len({(s.grid, s.row, s.column) for s in seen}) == len(seen)


def test_the_whole_range_occurs() -> None:
    videos = [sample_arena("train", 0, index) for index in range(400)]
    counts = {len(video.events) for video in videos}
    lengths = {event.grids for video in videos for event in video.events}
    assert min(counts) == 2 and max(counts) > 30 and min(lengths) == 1 and max(lengths) > 40
    assert {transition for video in videos for transition in video.transitions} == {"cut", "dissolve", "fade"}
    assert any(event.camera != (0, 0) for video in videos for event in video.events)


def test_a_smaller_world_for_a_curriculum() -> None:
    limits = ArenaLimits(events=3, grids=8, rows=4, columns=8)
    for index in range(50):
        video = sample_arena("train", 0, index, limits)
        assert len(video.events) <= 3 and video.frame_count <= 16 and video.size == (56, 112)
