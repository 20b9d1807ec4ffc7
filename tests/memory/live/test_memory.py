"""A memory to which frames are pushed: events, the last seconds, what becomes of them."""

import io
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from marc.memory import MemoryOptions
from marc.memory.live import LiveOptions, StoredWatch, compaction, records
from marc.memory.live.compaction import Compaction


def spans(snapshot) -> list[tuple[float, float]]:
    return [(round(each.span.start, 2), round(each.span.end, 2)) for each in snapshot.events]


def test_events_close_soon_after_their_cuts(open_memory, show):
    memory = open_memory()
    at = show(memory, "red", 3)
    at = show(memory, "green", 0.2, at)
    assert memory.closed == 0
    at = show(memory, "green", 2.8, at)
    assert spans(memory.snapshot()) == [(0, 3)]
    show(memory, "blue", 3, at)
    memory.end()
    assert spans(memory.snapshot()) == [(0, 3), (3, 6), (6, 9)]


def test_an_event_keeps_its_direction_a_thumbnail_and_pairs_of_frames(open_memory, show):
    memory = open_memory(options=LiveOptions(event_frames=4, event_pixels=1024))
    show(memory, "blue", 1.5, show(memory, "red", 6))
    (event,) = memory.snapshot().events
    assert event.vector.argmax() == 0
    assert np.isclose(np.linalg.norm(event.vector), 1, atol=1e-5)
    frames = event.frames()
    assert len(frames) == 4
    assert np.diff(event.seconds)[::2].tolist() == pytest.approx([0.5, 0.5])
    picture = Image.open(io.BytesIO(frames[0].jpeg))
    assert picture.size == event.size
    assert picture.width * picture.height <= 1024
    assert Image.open(io.BytesIO(event.thumbnail())).size == (160, 120)


def test_the_last_seconds_are_there_in_full_size_and_no_more(open_memory, show):
    memory = open_memory(options=LiveOptions(recent_seconds=4))
    show(memory, "blue", 9, show(memory, "red", 12))
    recent = memory.snapshot().recent
    assert recent[0].second == pytest.approx(12, abs=0.6)  # the open event's frames stay
    assert {frame.size for frame in recent} == {(64, 48)}
    assert Image.open(io.BytesIO(recent[-1].jpeg)).size == (64, 48)
    assert recent[-1].second == pytest.approx(20.5)


def test_the_last_seconds_have_a_room_of_their_own(open_memory, show):
    memory = open_memory(options=LiveOptions(recent_mib=0.02))
    show(memory, "red", 15)
    assert sum(len(frame.jpeg) for frame in memory.snapshot().recent) <= 0.02 * 2**20
    files = memory_folder(memory).glob("recent.*")
    assert sum(file.stat().st_size for file in files) < 3 * 0.02 * 2**20


def memory_folder(memory):
    return memory._store.folder


def test_short_shots_are_joined_with_what_follows(open_memory, show):
    memory = open_memory()
    at = 0.0
    for colour, seconds in (("red", 0.5), ("green", 2), ("blue", 2)):
        at = show(memory, colour, seconds, at)
    memory.end()
    assert spans(memory.snapshot()) == [(0, 2.5), (2.5, 4.5)]


def test_a_long_shot_is_split_where_it_changes_most(open_memory, show, colours):
    cutting = MemoryOptions(segmenter="uniform", min_event_seconds=1, max_event_seconds=8, seconds_per_frame=1)
    memory = open_memory(memory=cutting)
    show(memory, "blue", 5, show(memory, "red", 5))
    assert spans(memory.snapshot())[0] == pytest.approx((0, 4.5), abs=0.6)


def test_another_process_sees_the_same(open_memory, show):
    memory = open_memory()
    show(memory, "green", 3, show(memory, "red", 3))
    memory.flush()
    here, there = memory.snapshot(), StoredWatch(memory_folder(memory)).snapshot()
    assert spans(there) == spans(here)
    assert there.until == here.until
    assert there.open_start == here.open_start
    assert [frame.jpeg for frame in there.recent][-4:] == [frame.jpeg for frame in here.recent][-4:]
    assert there.events[0].frames() == here.events[0].frames()


def test_a_memory_goes_on_under_its_name(open_memory, show):
    memory = open_memory()
    show(memory, "green", 1, show(memory, "red", 3))
    before = memory.snapshot()
    memory.close()
    memory = open_memory()
    assert memory.until == before.until
    assert spans(memory.snapshot()) == spans(before)
    show(memory, "blue", 2, show(memory, "green", 2, 1000.0))
    memory.end()
    assert spans(memory.snapshot()) == [
        (0, 3),
        pytest.approx((3, 5.54), abs=0.1),
        pytest.approx((5.54, 7.54), abs=0.5),
    ]


def test_nobody_else_writes_it_meanwhile(open_memory):
    open_memory()
    with pytest.raises(ValueError, match="another process watches"):
        open_memory()


def test_a_memory_of_other_options_is_not_mixed(open_memory):
    open_memory().close()
    with pytest.raises(ValueError, match="begun with options"):
        open_memory(options=LiveOptions(event_frames=2))


def test_room_for_few_events_makes_chapters_of_those_that_are_alike(open_memory, show):
    memory = open_memory(options=LiveOptions(most_events=3, whole_seconds=0, event_frames=4))
    at = 0.0
    for colour in ("red", "red", "blue", "blue", "green", "red"):
        at = show(memory, colour, 2, at)
        memory._cut(at)  # the detector sees no cut between two of one colour
    memory.end()
    snapshot = memory.snapshot()
    assert [(each.span.start, each.parts) for each in snapshot.events] == [(0, 2), (4, 3), (10, 1)]  # not the newest
    assert snapshot.events[0].vector.argmax() == 0
    assert len(snapshot.events[0].frames()) == 4
    assert "chapters" in snapshot.forgotten()
    assert memory.closed == 6, "chapters are no events"
    assert spans(StoredWatch(memory_folder(memory)).snapshot()) == spans(snapshot)


def settle(memory, show, at: float) -> float:
    """Shows more until no log is being written anew."""
    while memory._store._compaction is not None:
        at = show(memory, ("red", "green")[round(at) % 2], 1.5, at)
    return at


def test_room_in_bytes_is_kept_and_the_file_does_not_grow_for_ever(open_memory, show, monkeypatch):
    monkeypatch.setattr("marc.memory.live.store.SLACK", 0)
    memory = open_memory(options=LiveOptions(memory_mib=0.03, event_frames=2))
    watching, at = StoredWatch(memory_folder(memory)), 0.0
    for number in range(24):
        at = show(memory, ("red", "green", "blue")[number % 3], 1.5, at)
        assert spans(watching.snapshot()) == spans(memory.snapshot())
    at = settle(memory, show, at)
    assert spans(watching.snapshot()) == spans(memory.snapshot())
    state = memory._store.state
    assert state.size <= 0.03 * 2**20
    (file,) = memory_folder(memory).glob("events.*.log")
    assert file.name != "events.0.log"
    assert file.stat().st_size < 3 * 0.03 * 2**20
    assert sum(each.parts for each in state.events) >= 23  # the last one is not over


@pytest.mark.parametrize("room", [{"most_events": 3}, {"memory_mib": 0.03, "event_frames": 2}])
def test_an_event_that_the_disk_has_lost_stops_nothing(open_memory, show, monkeypatch, caplog, room):
    monkeypatch.setattr("marc.memory.live.store.SLACK", 0)
    memory, at = open_memory(options=LiveOptions(whole_seconds=0, **room)), 0.0
    for colour in ("red", "green"):
        at = show(memory, colour, 1.5, at)
    (event,) = memory.snapshot().events
    with open(event.record.file.path, "r+b") as file:
        file.seek(event.record.place + 10)
        file.write(b"damage")
    for number in range(20):
        at = show(memory, ("blue", "red", "green")[number % 3], 1.5, at)
    events = memory.snapshot().events
    assert "are lost" in caplog.text
    assert events[0].span.start > 0
    assert all(each.thumbnail() and each.frames() for each in events)
    assert spans(StoredWatch(memory_folder(memory)).snapshot()) == spans(memory.snapshot())


def test_a_gap_ends_an_event_and_is_said(open_memory, show):
    memory = open_memory()
    show(memory, "red", 3, show(memory, "red", 3) + 60)
    memory.end()
    snapshot = memory.snapshot()
    assert spans(snapshot) == [(0, pytest.approx(3.4)), (63, pytest.approx(66))]
    assert [(round(gap.start, 1), round(gap.end, 1)) for gap in snapshot.gaps] == [(2.9, 63.0)]


def test_a_clock_that_falls_back_is_no_reason_to_forget(open_memory, show):
    memory = open_memory()
    show(memory, "red", 3, 500)
    show(memory, "green", 3, 20)
    memory.end()
    assert spans(memory.snapshot()) == [(0, pytest.approx(3.0)), (3.0, pytest.approx(6.0))]
    assert "fell back" in memory.snapshot().gaps[0].why


def test_frames_of_another_size_are_another_event(open_memory, show):
    memory = open_memory()
    show(memory, "red", 3, show(memory, "red", 3), size=(32, 32))
    memory.end()
    events = memory.snapshot().events
    assert spans(memory.snapshot()) == [(0, 3), (3, pytest.approx(6))]
    assert [each.size for each in events] == [(64, 48), (32, 32)]


def test_a_full_disk_stops_nothing_and_is_said(open_memory, show, monkeypatch):
    memory = open_memory()

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    at = show(memory, "red", 3)
    with monkeypatch.context() as patch:
        patch.setattr("marc.memory.live.records.append_bytes", full)
        at = show(memory, "green", 3, at)
        assert "No space left" in memory.snapshot().problem
        assert memory.closed == 0
    at = show(memory, "blue", 3, at)
    memory.end()
    assert memory.problem == ""
    assert spans(memory.snapshot()) == [(0, 6), (6, 9)]
    assert spans(StoredWatch(memory_folder(memory)).snapshot()) == [(0, 6), (6, 9)]


@pytest.fixture
def slow_compaction(monkeypatch) -> threading.Event:
    """Compactions of anything, which end when the event is set."""
    allowed, write = threading.Event(), Compaction._write

    def slowly(self, notes, events):
        assert allowed.wait(60)
        write(self, notes, events)

    monkeypatch.setattr(Compaction, "_write", slowly)
    monkeypatch.setattr("marc.memory.live.store.SLACK", -(2**40))
    return allowed


def test_what_comes_while_the_log_is_written_anew_is_in_it(open_memory, show, slow_compaction):
    memory, at = open_memory(options=LiveOptions(most_events=3, whole_seconds=0)), 0.0
    watching = StoredWatch(memory_folder(memory))
    for colour in ("red", "green", "blue", "red", "green"):
        at = show(memory, colour, 3, at)
        assert spans(watching.snapshot()) == spans(memory.snapshot())
    memory.tell("a red car", 4.0)
    assert memory._store._last_number == 0 and memory.closed == 4
    slow_compaction.set()
    at = settle_once(memory, show, at)
    assert memory._store._last_number == 1
    assert spans(watching.snapshot()) == spans(memory.snapshot())
    before = memory.snapshot()
    memory.close()
    memory = open_memory(options=LiveOptions(most_events=3, whole_seconds=0))
    assert spans(memory.snapshot()) == spans(before) and memory.told == {"a red car": 4.0}
    assert [each.thumbnail() for each in memory.snapshot().events] == [each.thumbnail() for each in before.events]


def settle_once(memory, show, at: float) -> float:
    generation = memory._store._last_number
    while memory._store._last_number == generation:
        at = show(memory, ("red", "blue")[round(at) % 2], 1.5, at)
    return at


def test_who_leaves_meanwhile_leaves_nothing_half(open_memory, show, slow_compaction):
    memory = open_memory()
    show(memory, "green", 3, show(memory, "red", 3))
    before, store = memory.snapshot(), memory._store
    assert store._compaction is not None
    slow_compaction.set()
    memory.close()
    files = {path.name for path in store.folder.iterdir()}
    assert {name for name in files if not name.startswith("recent")} == {"watch.json", "events.0.log", ".lock"}
    assert spans(StoredWatch(store.folder).snapshot()) == spans(before)


def test_where_there_is_no_room_to_compact_events_follow_one_another(open_memory, show, monkeypatch, caplog):
    """What was recorded stays, the log grows on, and the next try comes later."""
    memory, tries = open_memory(), []

    def full(self, notes, events):
        tries.append(self)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("marc.memory.live.store.SLACK", -(2**40))
    monkeypatch.setattr(Compaction, "_write", full)
    at = 0.0
    for colour in ("red", "green", "blue", "red"):
        at = show(memory, colour, 3, at)
    assert len(tries) == 1 and "cannot be written anew" in caplog.text
    memory.end()
    assert spans(memory.snapshot()) == [(0, 3), (3, 6), (6, 9), (9, 12)]
    assert spans(StoredWatch(memory_folder(memory)).snapshot()) == [(0, 3), (3, 6), (6, 9), (9, 12)]
    caplog.clear()


def test_a_compaction_that_fills_the_disk_makes_room_at_once(open_memory, show, monkeypatch, caplog):
    """As long as its half file is there nothing else can be written."""
    memory = open_memory()
    folder, append = memory_folder(memory), records.append_bytes

    def full(*_):
        raise OSError(28, "No space left on device")

    def append_if_room(path, content):
        append(path, content) if not list(folder.glob(".*marc-tmp*")) else full()

    monkeypatch.setattr("marc.memory.live.store.SLACK", -(2**40))
    monkeypatch.setattr("marc.memory.live.compaction.sync", full)
    monkeypatch.setattr(records, "append_bytes", append_if_room)
    at = 0.0
    for colour in ("red", "green", "blue", "red"):
        at = show(memory, colour, 3, at)
    memory.end()
    assert "cannot be written anew" in caplog.text and not list(folder.glob(".*marc-tmp*"))
    assert spans(StoredWatch(folder).snapshot()) == [(0, 3), (3, 6), (6, 9), (9, 12)]
    caplog.clear()


@pytest.mark.parametrize("name", ["put_in_place", "append_bytes"])
def test_a_compaction_that_fails_at_its_end_loses_nothing(name, open_memory, show, monkeypatch, caplog):
    """Also when the new log is in its place already: readers would follow it, and the next start."""
    memory, done = open_memory(), getattr(compaction, name)
    monkeypatch.setattr("marc.memory.live.store.SLACK", -(2**40))

    def broken(*arguments):
        done(*arguments)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(compaction, name, broken)
    at = 0.0
    for colour in ("red", "green", "blue"):
        at = show(memory, colour, 3, at)
    memory.end()
    assert "cannot be written anew" in caplog.text
    expected = [(0, 3), (3, 6), (6, 9)]
    assert spans(StoredWatch(memory_folder(memory)).snapshot()) == spans(memory.snapshot()) == expected
    memory.close()
    assert spans(open_memory().snapshot()) == expected
    caplog.clear()


def test_an_event_that_is_left_out_of_a_new_log_and_joined_meanwhile_loses_nothing(
    open_memory, show, monkeypatch, caplog, slow_compaction
):
    monkeypatch.setattr(
        compaction, "intact_pictures", lambda event: None if event.number < 2 else event.record.pictures()
    )
    memory, at = open_memory(options=LiveOptions(most_events=3, whole_seconds=0)), 0.0
    for colour in ("red", "red", "green", "blue", "green", "blue"):
        at = show(memory, colour, 2, at)
        memory._cut(at)
    assert any(each.parts > 1 for each in memory.snapshot().events)
    slow_compaction.set()
    memory._store._compaction._written.result()
    at = show(memory, "red", 2, at)
    memory.flush()
    assert "cannot be written anew" in caplog.text
    assert spans(StoredWatch(memory_folder(memory)).snapshot()) == spans(memory.snapshot())
    memory.close()
    caplog.clear()


def test_the_end_of_a_source_outlives_a_new_log(open_memory, show, monkeypatch):
    memory = open_memory()
    at = show(memory, "red", 3)
    monkeypatch.setattr("marc.memory.live.store.SLACK", -(2**40))
    show(memory, "green", 3, at)
    memory.end()
    while memory._store._compaction is not None:
        memory.flush()
    memory.close()
    assert open_memory().ended is not None


def test_a_picture_that_cannot_be_read_is_a_damaged_one(open_memory, show, monkeypatch):
    memory = open_memory()
    show(memory, "green", 3, show(memory, "red", 3))
    (event,) = memory.snapshot().events

    def broken(self, place, count):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(records.RecordFile, "read", broken)
        with pytest.raises(records.DamagedRecordError, match="cannot be read"):
            event.thumbnail()


def test_what_lasts_too_long_is_not_tried_to_be_written_at_every_frame(open_memory, show, monkeypatch, caplog):
    memory = open_memory(memory=MemoryOptions("uniform", 1.0, 4.0, 1.0))
    closings, close = [], memory._close
    monkeypatch.setattr(memory, "_close", lambda end: closings.append(end) or close(end))

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("marc.memory.live.records.append_bytes", full)
        at = show(memory, "red", 10)
        assert 4 <= len(closings) <= 8, "one a second, after four"
    show(memory, "red", 2, at)
    memory.end()
    assert memory.snapshot().events[0].span.start == 0 and not memory.problem
    caplog.clear()


def test_what_was_told_is_known_later(open_memory):
    memory = open_memory()
    memory.tell("a red car", 12.5)
    memory.close()
    assert open_memory().told == {"a red car": 12.5}


def test_what_is_no_frame_is_refused(open_memory):
    with pytest.raises(ValueError, match="uint8"):
        open_memory().push(np.zeros((4, 4, 3)), 0.0)


def test_a_snapshot_stays_as_it_is(open_memory, show):
    memory = open_memory()
    at = show(memory, "red", 2)
    snapshot = memory.snapshot()
    kept = replace(snapshot)
    show(memory, "green", 4, at)
    assert snapshot == kept
    assert not snapshot.events


@pytest.mark.parametrize(("known", "end"), [(None, 3.0), (2.95, 2.95), (60.0, 3.0)])
def test_a_source_that_is_over_has_one_end(open_memory, show, known, end):
    memory = open_memory()
    show(memory, "red", 3)
    memory.end(known)
    snapshot, stored = memory.snapshot(), StoredWatch(memory_folder(memory)).snapshot()
    ends = memory.until, memory.ended, snapshot.seen, stored.seen, snapshot.events[-1].span.end
    assert ends == (pytest.approx(end),) * 5
    assert f"seen until {end:.1f} s" in stored.seen_until()
    memory.close()
    again = open_memory()
    again.end()
    assert (again.until, again.ended) == (pytest.approx(end),) * 2, "it does not end later for being ended again"


def test_a_source_that_goes_on_has_no_end(open_memory, show):
    memory = open_memory()
    show(memory, "red", 3)
    memory.end()
    show(memory, "red", 2, 3)
    snapshot = memory.snapshot()
    assert snapshot.ended is None and snapshot.seen == snapshot.recent[-1].second > 3
