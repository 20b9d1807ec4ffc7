"""Which neighbours become a chapter, and what is left of them."""

import numpy as np
import pytest

from marc.memory.live.chapters import has_room, joined, nearest_pair, pairs_kept
from marc.memory.live.options import LiveOptions
from marc.memory.live.records import RecordWriter, packed
from marc.memory.live.snapshot import LiveEvent, LiveState


@pytest.fixture
def events(tmp_path):
    """Makes events of two seconds, one behind another, from angles in degrees; parts and sizes may be given."""
    writer = RecordWriter(tmp_path / "events.log")

    def make(*angles, parts=None, sizes=None):
        made = []
        for number, angle in enumerate(angles):
            head = {
                "kind": "event",
                "number": number,
                "start": 2.0 * number,
                "end": 2.0 * number + 2,
                "parts": parts[number] if parts else 1,
                "dropped": 0,
                "seconds": [2 * number + each / 2 for each in range(4)],
                "size": list(sizes[number]) if sizes else [8, 8],
            }
            vector = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))], np.float32)
            pictures = [b"t%d" % number, *(b"f%d%d" % (number, each) for each in range(4))]
            (record,) = writer.append(packed(head, vector, pictures))
            made.append(LiveEvent.of(record))
        return made

    return make


def test_the_nearest_neighbours_are_joined_first(events):
    assert nearest_pair(events(0, 40, 50, 120), np.inf) == 1


def test_of_equally_near_ones_those_go_that_stand_for_fewer(events):
    assert nearest_pair(events(0, 10, 20, 30, parts=(6, 6, 1, 1)), np.inf) == 2


def test_young_events_stay_whole_as_long_as_there_are_older_ones(events):
    some = events(0, 90, 180, 181)
    assert nearest_pair(some, 6.0) in (0, 1)
    assert nearest_pair(some, 2.0) == 2


def test_a_chapter_stands_for_both(events):
    first, second = events(0, 90, parts=(3, 1))
    head, vector, pictures = joined(first, second, 7, 4)
    assert (head["start"], head["end"], head["parts"], head["replaces"]) == (0, 4, 4, [0, 1])
    assert vector == pytest.approx(np.array([3, 1]) / np.sqrt(10), abs=1e-6)
    assert len(pictures) == 5
    assert len(head["seconds"]) == 4
    assert head["dropped"] == 4
    assert [picture[:2] for picture in pictures[1:]] == [b"f0", b"f0", b"f1", b"f1"]
    assert np.diff(head["seconds"])[::2].tolist() == [0.5, 0.5]


def test_a_chapter_has_frames_of_one_size(events):
    first, second = events(0, 1, sizes=((8, 8), (16, 8)))
    head, _, pictures = joined(first, second, 7, 8)
    assert head["size"] == [8, 8]
    assert {picture[:2] for picture in pictures[1:]} == {b"f0"}
    assert head["dropped"] == 4


@pytest.mark.parametrize(
    ("count", "most", "kept"),
    [(4, 8, [0, 1, 2, 3]), (8, 4, [2, 3, 6, 7]), (5, 8, [0, 1, 2, 3]), (8, 2, [4, 5]), (0, 4, []), (2, 0, [])],
)
def test_frames_are_kept_in_pairs_evenly(count, most, kept):
    assert pairs_kept(count, most) == kept


def test_room_is_of_events_and_of_bytes(events):
    state = LiveState()
    for event in events(0, 1, 2):
        state.apply(event.record)
    assert has_room(state, LiveOptions(most_events=3))
    assert not has_room(state, LiveOptions(most_events=2))
    assert not has_room(state, LiveOptions(memory_mib=1e-6))
