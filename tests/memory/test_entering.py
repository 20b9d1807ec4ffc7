from dataclasses import replace
from pathlib import Path

import pytest

from marc.memory import entering
from marc.memory.entering import entered
from marc.memory.library import MemoryLibrary
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


def test_the_library_is_compacted_now_and_then(library, memory, monkeypatch):
    monkeypatch.setattr(entering, "PAUSE", 0.0)
    monkeypatch.setattr(entering, "COMPACTED_AFTER", 4)
    counts = []
    for _ in entered(outcomes_of(*map(memory, range(11))), library):
        counts.append(fragments(library))
    assert max(counts) <= 5 and fragments(library) <= 2
    assert len(library.videos()) == 11


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
