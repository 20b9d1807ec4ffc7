import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from marc.memory import entering
from marc.memory.entering import entered
from marc.memory.library import LibraryError, MemoryLibrary
from marc.memory.workers import Outcome


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "helpers")
    from writer import memory

    return memory


@pytest.fixture
def library(tmp_path) -> MemoryLibrary:
    return MemoryLibrary(tmp_path / "library")


def outcomes_of(*memories, known=False) -> list[Outcome]:
    return [Outcome(each.source, each, known=known, texts=("",) * len(each.events)) for each in memories]


def fragments(library) -> int:
    (table,) = library._tables()
    return table.stats()["fragment_stats"]["num_fragments"]


def assert_no_timer_is_left() -> None:
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(10)
            assert not thread.is_alive()


def test_who_comes_meanwhile_goes_in_together(library, memory):
    failed = Outcome("letter.mp4", None, "letter.mp4: no video")
    outcomes = outcomes_of(*map(memory, range(30)))
    told = list(entered([outcomes[0], failed, *outcomes[1:]], library, ["trip"]))
    assert sorted(told, key=lambda one: one.video) == sorted([failed, *outcomes], key=lambda one: one.video)
    assert library.videos() == {one.video: 5 for one in outcomes}
    assert all(library.holds(one.memory, one.texts, ["trip"]) for one in outcomes)
    (table,) = library._tables()
    assert len(list(table.list_versions())) < 10, "not a version for each video"


def test_who_comes_alone_is_in_at_once(library, memory, monkeypatch):
    monkeypatch.setattr(entering, "PAUSE", 0.0)
    outcomes = outcomes_of(*map(memory, range(3)))
    for number, one in enumerate(entered(iter(outcomes), library), 1):
        assert one is outcomes[number - 1] and len(library.videos()) == number


def test_who_waits_is_in_when_the_pause_is_over_though_nobody_comes(library, memory, monkeypatch):
    monkeypatch.setattr(entering, "PAUSE", 0.3)
    outcomes = outcomes_of(*map(memory, range(3)))
    counts = []

    def coming():
        yield from outcomes[:2]
        patience = time.monotonic() + 30
        while len(library.videos()) < 2 and time.monotonic() < patience:
            time.sleep(0.05)
        counts.append(len(library.videos()))
        yield outcomes[2]

    assert list(entered(coming(), library)) == outcomes
    assert counts == [2] and len(library.videos()) == 3


def test_what_goes_wrong_when_nobody_comes_is_raised_by_the_next(library, memory, monkeypatch):
    monkeypatch.setattr(entering, "PAUSE", 0.1)
    outcomes = outcomes_of(*map(memory, range(3)))
    tried, add = [], library.add

    def failing(memories, *rest):
        tried.append(threading.current_thread() is threading.main_thread())
        if len(tried) > 1:
            raise MemoryError("of this machine")
        add(memories, *rest)

    def coming():
        yield from outcomes[:2]
        patience = time.monotonic() + 30
        while len(tried) < 2 and time.monotonic() < patience:
            time.sleep(0.02)
        yield outcomes[2]

    monkeypatch.setattr(library, "add", failing)
    with pytest.raises(MemoryError, match="of this machine"):
        list(entered(coming(), library))
    assert tried == [True, False, True]
    assert_no_timer_is_left()


def test_whoever_is_interrupted_leaves_no_thread(library, memory, monkeypatch):
    monkeypatch.setattr(entering, "PAUSE", 60.0)

    def coming():
        yield from outcomes_of(memory(0), memory(1))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(entered(coming(), library))
    assert_no_timer_is_left()


def test_the_library_is_compacted_now_and_then(library, memory, monkeypatch):
    monkeypatch.setattr(entering, "PAUSE", 0.0)
    monkeypatch.setattr(entering, "COMPACTED_AFTER", 4)
    counts = []
    for _ in entered(outcomes_of(*map(memory, range(11))), library):
        counts.append(fragments(library))
    assert max(counts) <= 5 and fragments(library) <= 2
    assert len(library.videos()) == 11


def test_where_there_is_no_room_to_compact_the_videos_are_in(library, memory, monkeypatch, caplog):
    def full(self):
        raise LibraryError("no room for it")

    monkeypatch.setattr(MemoryLibrary, "optimize", full)
    monkeypatch.setattr(entering, "PAUSE", 0.0)
    monkeypatch.setattr(entering, "COMPACTED_AFTER", 2)
    outcomes = outcomes_of(*map(memory, range(3)))
    assert list(entered(outcomes, library)) == outcomes
    assert len(library.videos()) == 3 and caplog.text.count("slower than it could be: no room for it") == 2
    caplog.clear()


def test_what_is_there_is_not_written_again(library, memory):
    outcomes = outcomes_of(memory(1), memory(2), known=True)
    list(entered(outcomes, library))
    before = library._versions()
    list(entered(outcomes, library))
    assert library._versions() == before
    list(entered(outcomes_of(memory(1, events=7), known=True), library))
    assert library.videos() == {"/videos/1.mp4": 7, "/videos/2.mp4": 5}


def test_what_the_library_refuses_fails_by_itself(library, memory):
    odd = replace(memory(1), source="/videos/\udcff.mp4")
    told = list(entered(outcomes_of(memory(0), odd, memory(2)), library))
    (failed,) = (one for one in told if one.error)
    assert failed.memory is None and failed.error.startswith("/videos/\udcff.mp4: ") and "UTF-8" in failed.error
    assert set(library.videos()) == {"/videos/0.mp4", "/videos/2.mp4"}
