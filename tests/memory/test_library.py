import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from marc.extras import MissingExtraError
from marc.memory import library as library_module
from marc.memory.library import LibraryError, MemoryLibrary
from marc.types import Event

HELPERS = Path(__file__).parent / "helpers"


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.syspath_prepend(HELPERS)
    from writer import memory

    return memory


@pytest.fixture
def library(tmp_path) -> MemoryLibrary:
    return MemoryLibrary(tmp_path / "library")


class Asker:
    """An embedder whose every question is the given vector."""

    name = "asker"

    def __init__(self, vector, fingerprint="a" * 64):
        self.identity = {"fingerprint": fingerprint, "precision": "fp32"}
        self.vector = vector

    def embed_question(self, _):
        return SimpleNamespace(vector=self.vector)


def writer(address: Path, first: int, count: int) -> subprocess.Popen:
    command = [sys.executable, str(HELPERS / "writer.py"), str(address), str(first), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_recall_equals_a_float64_cosine_over_all_videos(library, memory):
    memories = [memory(number, events=7) for number in range(20)]
    library.add(memories)
    query = memory(999, events=1).embeddings[0]
    found = library.recall(Asker(query), "anything", k=15)
    vectors = np.concatenate([each.embeddings for each in memories]).astype(np.float64)
    scores = vectors @ query / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(query.astype(np.float64)))
    best = np.argsort(-scores)[:15]
    assert [(event.source, event.position) for event in found] == [(f"/videos/{i // 7}.mp4", i % 7) for i in best]
    np.testing.assert_allclose([event.score for event in found], scores[best], atol=1e-5)
    assert found[0].event == Event(best[0] % 7, best[0] % 7 + 1)


def test_adding_again_replaces_all_events_of_the_video(library, memory):
    library.add([memory(1, events=9), memory(2)])
    library.add([memory(1, events=4, shift=10.0)])
    assert library.videos() == {"/videos/1.mp4": 4, "/videos/2.mp4": 5}
    found = library.recall(Asker(memory(1).embeddings[0]), "anything", k=100)
    assert {event.event.start for event in found if event.source == "/videos/1.mp4"} == {10, 11, 12, 13}


def test_a_video_that_was_edited_is_replaced_at_its_path(library, memory):
    library.add([memory(1, events=9), memory(2)])
    edited = replace(memory(7, events=3), source="/videos/1.mp4")
    library.add([edited])
    assert library.videos() == {"/videos/1.mp4": 3, "/videos/2.mp4": 5}
    assert library.holds(edited)


def test_holds_knows_content_settings_and_place(library, memory):
    one = memory(1)
    assert not library.holds(one)
    library.add([one])
    assert library.holds(one)
    assert not library.holds(memory(2))
    assert not library.holds(replace(one, settings=replace(one.settings, max_seconds=9.0)))
    assert not library.holds(replace(one, source="/moved/1.mp4"))


def test_removed_videos_are_gone(library, memory):
    quoted = replace(memory(3), source="/videos/what's up.mp4")
    library.add([memory(1), memory(2), quoted])
    assert library.remove("/videos/1.mp4") == 5
    assert library.remove("/videos/what's up.mp4") == 5
    assert library.remove("/videos/unknown.mp4") == 0
    assert library.videos() == {"/videos/2.mp4": 5}


def test_vectors_of_different_models_never_meet(library, memory):
    library.add([memory(1), memory(2, embedder="b" * 64)])
    query = memory(2).embeddings[0]
    assert {event.source for event in library.recall(Asker(query), "x", k=50)} == {"/videos/1.mp4"}
    assert {event.source for event in library.recall(Asker(query, "b" * 64), "x", k=50)} == {"/videos/2.mp4"}
    with pytest.raises(ValueError, match=r"nothing was remembered with the embedder asker; use `marc remember`"):
        library.recall(Asker(query, "c" * 64), "x")


def test_another_precision_of_the_same_weights_is_found_too(library, memory):
    half = memory(2)
    half = replace(half, settings=replace(half.settings, precision="bf16"))
    library.add([memory(1), half])
    found = library.recall(Asker(half.embeddings[0]), "x", k=50)
    assert {event.source for event in found} == {"/videos/1.mp4", "/videos/2.mp4"}
    assert [event.score for event in found] == sorted((event.score for event in found), reverse=True)
    assert len(library.recall(Asker(half.embeddings[0]), "x", k=3)) == 3
    library.add([replace(memory(1), settings=half.settings)])
    again = library.recall(Asker(half.embeddings[0]), "x", k=50)
    assert len({(event.source, event.position) for event in again}) == len(again) == len(found)


def test_k_is_checked(library, memory):
    library.add([memory(1)])
    with pytest.raises(ValueError, match="k must be at least 1"):
        library.recall(Asker(memory(1).embeddings[0]), "x", k=0)


def test_the_index_is_built_extended_and_used(library, memory, monkeypatch):
    monkeypatch.setattr(library_module, "INDEX_FROM", 1000)
    library.add([memory(number, events=50) for number in range(30)])
    library.optimize()
    (table,) = library._tables()
    assert [index.index_type for index in table.list_indices()] == ["IvfSq"]
    late = memory(500)
    library.add([late])
    assert library.recall(Asker(late.embeddings[2]), "x", k=1)[0].source == late.source
    library.optimize()
    (table,) = library._tables()
    assert table.index_stats("vector_1500").num_unindexed_rows == 0
    assert library.recall(Asker(late.embeddings[2]), "x", k=1)[0].source == late.source
    monkeypatch.setattr(library_module, "GROWTH", 2)
    library.add([memory(number, events=50) for number in range(30, 61)])
    library.optimize()
    (table,) = library._tables()
    (index,) = table.list_indices()
    assert (index.name, index.num_indexed_rows) == ("vector_3055", 3055)
    assert library.recall(Asker(late.embeddings[2]), "x", k=1)[0].source == late.source


def test_kill_9_in_mid_write_loses_nothing_that_was_in(library, memory):
    inside: set[int] = set()
    for first, patience in ((0, 1), (100, 6)):
        with writer(Path(library.address), first, 10_000) as process:
            inside |= {int(process.stdout.readline()) for _ in range(patience)}
            time.sleep(0.003 * patience)
            process.kill()
            inside |= {int(line) for line in process.stdout.read().splitlines() if line}
    counts = library.videos()
    assert {f"/videos/{number}.mp4" for number in inside} <= set(counts)
    assert set(counts.values()) == {5}
    library.add([memory(9999)])
    library.optimize()
    assert "/videos/9999.mp4" in library.videos()


def test_two_processes_write_while_a_third_reads(library, memory):
    library.add([memory(7)])
    query = Asker(memory(7).embeddings[0])
    with writer(Path(library.address), 1000, 12) as first, writer(Path(library.address), 2000, 12) as second:
        while first.poll() is None or second.poll() is None:
            assert library.recall(query, "x", k=1)[0].source == "/videos/7.mp4"
            assert set(library.videos().values()) == {5}
        assert (first.returncode, second.returncode) == (0, 0), (first.stderr.read(), second.stderr.read())
    expected = {7, *range(1000, 1012), *range(2000, 2012)}
    assert library.videos() == {f"/videos/{number}.mp4": 5 for number in sorted(expected, key=str)}


def test_a_full_disk_is_a_clear_error_and_loses_nothing(library, memory):
    """The kernel refuses to write more, as on a full disk."""
    library.add([memory(1)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        with pytest.raises(LibraryError, match=r"cannot write the library .*what it held is untouched"):
            library.add([memory(2, events=3000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert library.videos() == {"/videos/1.mp4": 5}
    library.add([memory(2)])
    assert library.videos() == {"/videos/1.mp4": 5, "/videos/2.mp4": 5}


def test_without_the_package_its_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(MissingExtraError, match=r"lancedb is not installed.*marc-video\[library\]"):
        MemoryLibrary(tmp_path / "library")


def test_an_address_that_cannot_be_opened_is_named(tmp_path, memory):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(LibraryError, match="file"):
        MemoryLibrary(tmp_path / "file" / "library").add([memory(1)])
