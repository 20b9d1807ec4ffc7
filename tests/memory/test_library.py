import os
import resource
import shutil
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
from marc.memory import search as search_module
from marc.memory.filters import EventFilter
from marc.memory.library import LibraryError, MemoryLibrary
from marc.memory.ranking import best_first, word_scores
from marc.memory.tables import lists_read, rows_of
from marc.memory.vectors import rounded
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

    def embed_question(self, question):
        return SimpleNamespace(vector=self.vector, text=question)


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


def test_in_a_large_table_new_rows_come_before_old_ones_go(library, memory, monkeypatch):
    monkeypatch.setattr("marc.memory.tables.JOINED", 5)
    library.add([memory(1, events=7), memory(2)])
    library.add([memory(1), memory(3)])
    assert library.videos() == {"/videos/1.mp4": 5, "/videos/2.mp4": 5, "/videos/3.mp4": 5}
    assert library.holds(memory(1)) and library.holds(memory(2)) and library.holds(memory(3))

    def killed(*_):
        raise KeyboardInterrupt

    edited = replace(memory(2, events=3), content="e" * 64)
    with monkeypatch.context() as patch:
        patch.setattr("lancedb.table.LanceTable.delete", killed)
        with pytest.raises(KeyboardInterrupt):
            library.add([edited])
    assert library.videos()["/videos/2.mp4"] == 8
    MemoryLibrary(library.address).mend()
    assert library.videos()["/videos/2.mp4"] == 3 and library.holds(edited)


def test_a_table_whose_maker_was_killed_at_once_is_made_anew(library, memory):
    name = f"events-{'a' * 16}-fp32.lance"
    (Path(library.address) / name / "_transactions").mkdir(parents=True)
    with pytest.raises(ValueError, match="nothing was remembered"):
        library.recall(Asker(memory(1).embeddings[0]), "anything")
    assert library.videos() == {} and not library.holds(memory(1))
    library.add([memory(1)])
    assert library.videos() == {"/videos/1.mp4": 5} and library.holds(memory(1))


def test_a_table_that_has_lost_its_versions_is_not_an_empty_one(library, memory):
    library.add([memory(1)])
    (table,) = Path(library.address).glob("*.lance")
    shutil.rmtree(table / "_versions")
    again = MemoryLibrary(library.address)
    for use in (again.videos, again.mend, lambda: again.add([memory(2)]), lambda: again.holds(memory(1))):
        with pytest.raises(LibraryError, match="has lost its versions; delete it, and remember its videos again"):
            use()


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


def test_a_copy_is_kept_beside_the_first_and_an_event_is_shown_once(library, memory, tmp_path):
    files = [tmp_path / "one.mp4", tmp_path / "two.mp4", tmp_path / "three.mp4"]
    for file in files[:2]:
        file.touch()
    copies = [replace(memory(1), source=str(file)) for file in files]
    library.add([copies[0]])
    library.add([copies[1], copies[2], memory(2)])
    assert library.videos() == {**{str(file): 5 for file in files}, "/videos/2.mp4": 5}
    assert all(library.holds(copy) for copy in copies)
    query = Asker(memory(1).embeddings[0])

    def recalled() -> set[str]:
        found = library.recall(query, "x", k=10)
        assert len({(event.content, event.position) for event in found}) == len(found) == 10
        return {event.source for event in found if event.content == memory(1).content}

    assert recalled() <= {str(file) for file in files[:2]}
    files[0].unlink()
    assert recalled() == {str(files[1])}
    files[2].touch()
    files[1].unlink()
    assert recalled() == {str(files[2])}
    assert library.remove(files[2]) == 5
    assert library.videos() == {**{str(file): 5 for file in files[:2]}, "/videos/2.mp4": 5}


def test_copies_leave_room_for_other_events(library, memory):
    library.add([replace(memory(1), source=f"/copies/{number}.mp4") for number in range(20)])
    library.add([memory(2)])
    (table,) = library._tables()
    found = library.nearest(table, memory(1).embeddings[0], k=8)
    assert len({(event.content, event.position) for event in found}) == 8


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


def test_a_name_that_is_not_utf8_is_refused_by_name(library, memory):
    odd = replace(memory(1), source=os.fsdecode(b"/videos/\xff.mp4"))
    for use in (lambda: library.holds(odd), lambda: library.add([memory(2), odd])):
        with pytest.raises(LibraryError, match=r"udcff\.mp4': the library cannot hold a name that is not UTF-8"):
            use()
    library.add([memory(2)])
    with pytest.raises(LibraryError, match="rename the file"):
        library.remove(odd.source)


def test_k_is_checked(library, memory):
    library.add([memory(1)])
    with pytest.raises(ValueError, match="k must be at least 1"):
        library.recall(Asker(memory(1).embeddings[0]), "x", k=0)


def test_the_index_is_built_extended_and_used(library, memory, monkeypatch):
    monkeypatch.setattr(library_module, "INDEX_FROM", 1000)
    library.add([memory(number, events=50) for number in range(30)])
    library.optimize()
    (table,) = library._tables()
    kinds = sorted((index.index_type, *index.columns) for index in table.list_indices())
    filters = [("BTree", "end"), ("BTree", "source"), ("BTree", "start"), ("BTree", "video")]
    assert kinds == [*filters, ("FTS", "words"), ("IvfSq", "vector"), ("LabelList", "tags")]
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
    (index,) = [index for index in table.list_indices() if index.columns == ["vector"]]
    assert (index.name, index.num_indexed_rows) == ("vector_3055", 3055)
    assert library.recall(Asker(late.embeddings[2]), "x", k=1)[0].source == late.source


@pytest.mark.parametrize(("rows", "lists"), [(0, 64), (10**6, 64), (10**7, 126)])
def test_more_lists_are_read_where_there_are_more(monkeypatch, rows, lists):
    monkeypatch.setattr("marc.memory.tables.rows_when_indexed", lambda table: rows)
    assert lists_read(None) == lists


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


def test_two_processes_that_write_the_same_videos_leave_each_event_once(library, memory):
    address = Path(library.address)
    with writer(address, 0, 10) as first, writer(address, 0, 10) as second:
        errors = [process.communicate()[1] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), errors
    assert library.videos() == {f"/videos/{number}.mp4": 5 for number in range(10)}


def rows_in(library) -> list[tuple[str, int, float]]:
    """Path, position and start of all rows."""
    rows = [row for table in library._tables() for row in table.to_arrow().to_pylist()]
    return sorted((row["source"], row["position"], row["start"]) for row in rows)


def test_a_doubled_library_shows_each_event_once_and_heals(library, memory):
    library.add([memory(1), memory(2)])
    (table,) = library._tables()
    table.add(rows_of(memory(1), [""] * 5))
    table.add(rows_of(memory(2, events=7, shift=10), [""] * 7))
    assert len(rows_in(library)) == 22
    assert [event.position for event in library.nearest(table, memory(1).embeddings[0], k=1)] == [0]
    found = library.recall(Asker(memory(1).embeddings[0]), "x", k=50)
    assert len({(event.source, event.event) for event in found}) == len(found)
    assert not library.holds(memory(1))
    MemoryLibrary(library.address).mend()
    assert rows_in(library) == [("/videos/1.mp4", index, index) for index in range(5)] + [
        ("/videos/2.mp4", index, 10 + index) for index in range(7)
    ]
    assert library.holds(memory(1)) and library.holds(memory(2, events=7))


def test_a_kill_between_two_steps_leaves_one_memory_of_a_video(library, memory, monkeypatch):
    half = replace(memory(1), settings=replace(memory(1).settings, precision="bf16"))
    library.add([memory(1)])

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lancedb.table.LanceTable.delete", killed)
        with pytest.raises(KeyboardInterrupt):
            library.add([half])
    assert len(rows_in(library)) == 10
    again = MemoryLibrary(library.address)
    again.mend()
    assert len(rows_in(again)) == 5
    again.add([memory(1)])
    assert again.holds(memory(1)) and len(rows_in(again)) == 5


@pytest.mark.parametrize("joined", [1_000_000, 5])
def test_what_a_killed_writer_left_is_mended_by_writers_that_began_before(library, memory, monkeypatch, joined):
    monkeypatch.setattr("marc.memory.tables.JOINED", joined)
    library.add([memory(1), memory(2), memory(3)])
    half = replace(memory(1), settings=replace(memory(1).settings, precision="bf16"))
    edited = replace(memory(2, events=3), content="e" * 64)

    def killed(*_):
        raise KeyboardInterrupt

    def interrupt(writer):
        with monkeypatch.context() as patch:
            patch.setattr("lancedb.table.LanceTable.delete", killed)
            with pytest.raises(KeyboardInterrupt):
                writer.add([half] if joined > 5 else [edited])

    expected = {"/videos/1.mp4": 5, "/videos/2.mp4": 5 if joined > 5 else 3, "/videos/3.mp4": 5}
    for writer in (MemoryLibrary(library.address), library):  # another, and the same once more
        interrupt(writer)
        assert library.videos() != expected
        library.add([memory(3)])
        assert library.videos() == expected
        library.add([memory(1), memory(2)])


def test_a_kill_before_a_new_table_is_whole(library, memory, monkeypatch):
    def killed(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(library_module, "prepare", killed)
        with pytest.raises(KeyboardInterrupt):
            library.add([memory(1)])
    assert library.recall(Asker(memory(1).embeddings[3]), "umbrella", k=1) == []
    library = MemoryLibrary(library.address)
    library.add([memory(1)], [["umbrella", "", "", "", ""]])
    assert library.recall(Asker(memory(1).embeddings[3]), "umbrella", k=1)[0].position == 0


def test_an_older_library_is_read_as_it_is_and_gets_texts_when_written(library, memory):
    import lancedb

    one = memory(1)
    name = library_module._table_name(one.settings.embedder, one.settings.precision)
    old = rows_of(one, [""] * 5).drop_columns(["text", "words"])
    lancedb.connect(library.address).create_table(name, old)
    query = Asker(one.embeddings[3])
    assert [event.position for event in library.recall(query, "umbrella", k=1)] == [3]
    assert library.holds(one)
    assert not library.holds(one, ["umbrella", "", "", "", ""])
    library.add([memory(2)])
    assert library.holds(one)
    assert [event.position for event in library.recall(query, "umbrella", k=1)] == [3]
    library.add([one], [["umbrella", "", "", "", ""]])
    assert library.holds(one, ["umbrella", "", "", "", ""])
    assert library.recall(query, "umbrella", k=2)[0].text == "umbrella"


# --- filters, tags, pages -------------------------------------------------------------------------------------------


def exact(memories, query):
    """Cosines in float64 of all events, by path and position, best first."""
    vectors = np.concatenate([each.embeddings for each in memories]).astype(np.float64)
    places = [(each.source, position) for each in memories for position in range(len(each.events))]
    cosines = vectors @ query / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(query.astype(np.float64)))
    return sorted(zip(places, cosines.tolist(), strict=True), key=lambda one: -one[1])


def places(found):
    return [(event.source, event.position) for event in found]


@pytest.mark.parametrize("scanned", [0, 50_000], ids=["through the index", "exactly"])
def test_scores_are_cosines_with_an_index_and_with_filters(library, memory, monkeypatch, scanned):
    """The index holds rounded vectors, whose distances LanceDB doubles: they are scored again."""
    monkeypatch.setattr(library_module, "INDEX_FROM", 1000)
    monkeypatch.setattr("marc.memory.tables.SCANNED", scanned)
    memories = [memory(number, events=50) for number in range(30)]
    for index in range(3):
        library.add(memories[index::3], tags=[f"tag {index}", "all"])
    library.optimize()
    query = memory(999, events=1).embeddings[0]
    wishes = {
        EventFilter(): lambda place: True,
        EventFilter(tags=("tag 1", "all")): lambda place: int(place[0][8:-4]) % 3 == 1,
        EventFilter(videos=("/videos/3.mp4", "/videos/17.mp4")): lambda place: place[0][8:-4] in ("3", "17"),
        EventFilter(after=3, before=5.5): lambda place: 3 <= place[1] <= 5,
        EventFilter(videos=("/videos/3.mp4",), after=20, tags=("tag 0",)): lambda place: (
            place[0] == "/videos/3.mp4" and place[1] >= 20
        ),
        EventFilter(tags=("tag 0", "tag 1")): lambda place: False,
    }
    for wish, is_wanted in wishes.items():
        wanted = [(place, cosine) for place, cosine in exact(memories, query) if is_wanted(place)][:20]
        found = library.recall(Asker(query), "anything", k=20, among=wish)
        assert places(found) == [place for place, _ in wanted], wish
        np.testing.assert_allclose([one.score for one in found], [cosine for _, cosine in wanted], atol=1e-5)


def test_a_filter_holds_for_words_too(library, memory):
    library.add([memory(1)], [SAID], tags=["talk"])
    library.add([memory(2)], [SAID])
    query = Asker(memory(3).embeddings[0])
    found = library.recall(query, "umbrella", k=20, among=EventFilter(tags=("talk",)))
    assert {one.source for one in found} == {"/videos/1.mp4"} and len(found) == 5
    assert {one.position for one in found[:2]} == {0, 3}


def test_a_folder_stands_for_the_videos_below_it(library, memory):
    sources = ["/videos/a/1.mp4", "/videos/a/b/2.mp4", "/videos/ab/3.mp4", "/videos/a.mp4", "/videos/100%/4.mp4"]
    library.add([replace(memory(number), source=source) for number, source in enumerate(sources)])

    def found(*paths):
        return {
            one.source for one in library.recall(Asker(memory(1).embeddings[0]), "x", 99, among=EventFilter(paths))
        }

    assert found("/videos/a") == set(sources[:2])
    assert found("/videos/a/") == set(sources[:2])
    assert found("/videos/a.mp4", "/videos/ab") == {sources[3], sources[2]}
    assert found("/videos/100_") == set()
    assert found("/") == set(sources)


def test_tags_stay_until_others_are_given(library, memory):
    library.add([memory(1), memory(2)], tags=["b", "a", "b"])
    assert library.holds(memory(1)) and library.holds(memory(1), tags=["a", "b"])
    assert not library.holds(memory(1), tags=["a"]) and not library.holds(memory(1), tags=[])
    library.add([memory(1, events=3), memory(3)])
    assert library.holds(memory(1, events=3), tags=["a", "b"]) and library.holds(memory(3), tags=[])
    half = replace(memory(2), settings=replace(memory(2).settings, precision="bf16"))
    library.add([half])
    assert library.holds(half, tags=["b", "a"])
    library.add([memory(1, events=3)], tags=[])
    assert library.holds(memory(1, events=3), tags=[])
    with pytest.raises(ValueError, match="is no tag"):
        library.add([memory(1)], tags=[" "])


def test_pages_follow_one_another_whatever_their_size(library, memory, monkeypatch):
    """By words and pictures, beyond the depth of both rankings; so do those of an index."""
    monkeypatch.setattr(search_module, "DEPTH", 40)
    monkeypatch.setattr(library_module, "INDEX_FROM", 1000)
    library.add([memory(number, events=50) for number in range(22)], [["umbrella", *[""] * 49]] * 22)
    half = [memory(number, events=50) for number in range(22, 25)]
    library.add([replace(one, settings=replace(one.settings, precision="bf16")) for one in half])
    library.optimize()
    query = Asker(memory(3, events=50).embeddings[7])
    whole = places(library.recall(query, "umbrella", k=1250))
    assert len(set(whole)) == 1250
    for size in (190, 500):
        paged, number, more = [], 0, True
        while more:
            number += 1
            page = library.recall_page(query, "umbrella", size, number=number)
            paged, more = paged + places(page.events), page.has_more
        assert paged == whole
        assert number == -(-1250 // size)
    with pytest.raises(ValueError, match="no page 4: the last one is 3"):
        library.recall_page(query, "umbrella", 500, number=4)
    relevance = [one.relevance for one in library.recall(query, "umbrella", k=1250)]
    assert relevance == sorted(relevance, reverse=True)


def test_a_page_goes_on_where_its_version_ended_whoever_writes_between(library, memory):
    library.add([memory(number) for number in range(4)])
    query = Asker(memory(1).embeddings[0])
    whole = places(library.recall(query, "x", k=20))
    first = library.recall_page(query, "x", 8)
    library.remove("/videos/1.mp4")
    library.add([memory(2, events=9), memory(9)])
    library.optimize()
    again = MemoryLibrary(library.address)
    second = again.recall_page(query, "x", 8, number=2, version=first.version)
    third = again.recall_page(query, "x", 8, number=3, version=first.version)
    assert places(first.events + second.events + third.events) == whole
    assert (second.has_more, third.has_more) == (True, False)
    assert "/videos/1.mp4" not in {one.source for one in again.recall_page(query, "x", 50).events}


@pytest.mark.parametrize("version", ["99", "1.2", "x", ""])
def test_a_version_that_is_not_there_is_named(library, memory, version):
    library.add([memory(1)])
    with pytest.raises(ValueError, match=f"version {version} of the library is no more"):
        library.recall_page(Asker(memory(1).embeddings[0]), "x", number=2, version=version)


def test_the_first_hundred_are_ordered_by_their_best_keyframe(library, memory, monkeypatch):
    """An event that shows two things is the mean of both, and far from either."""
    monkeypatch.setattr(search_module, "FIRST", 3)
    axes = np.eye(8, dtype=np.float32)
    shown = [
        [axes[0], axes[1]],
        [0.8 * axes[0] + 0.6 * axes[2]],
        [axes[0] * 0.6 + axes[3] * 0.8],
        [axes[0], *axes[4:]],
    ]
    means = np.stack([np.mean(each, axis=0) for each in shown])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    looks = tuple(rounded(np.stack(each)) for each in shown)
    library.add([replace(memory(1, events=4), embeddings=means, looks=looks)])
    query = Asker(axes[0])

    def found(**options):
        return library.recall_page(query, "umbrella", 4, **options).events

    assert [one.position for one in found()] == [1, 0, 2, 3]
    assert [one.position for one in found(by_frames=True)] == [0, 1, 2, 3]
    np.testing.assert_allclose([one.frame_score for one in found(by_frames=True)], [1, 0.8, 0.6, 1], atol=0.01)
    np.testing.assert_allclose([one.score for one in found(by_frames=True)], means[[0, 1, 2, 3], 0], atol=1e-6)
    relevance = [one.relevance for one in found(by_frames=True)]
    assert relevance == sorted(relevance, reverse=True)
    library.add([memory(2)])
    library.add([replace(memory(1, events=4), embeddings=means)])
    assert [one.position for one in found(by_frames=True)] == [one.position for one in found()]


def test_an_older_library_has_no_tags_until_it_is_written(library, memory):
    import lancedb

    one = memory(1)
    name = library_module._table_name(one.settings.embedder, one.settings.precision)
    lancedb.connect(library.address).create_table(name, rows_of(one, [""] * 5).drop_columns(["tags", "looks"]))
    query, wish = Asker(one.embeddings[3]), EventFilter(tags=("a",))
    assert library.recall(query, "x", among=wish) == [] and len(library.recall(query, "x")) == 5
    assert library.holds(one, tags=[]) and not library.holds(one, tags=["a"])
    library.add([memory(2)], tags=["a"])
    assert {found.source for found in library.recall(query, "x", 20, among=wish)} == {"/videos/2.mp4"}
    library.add([one], tags=["a"])
    assert len(library.recall(query, "x", 20, among=wish)) == 10


def test_deletes_and_updates_while_others_read(library, memory):
    """A reader sees each video as it was before a change or as it is after it, never a part."""
    library.add([memory(number) for number in range(6)], tags=["kept"])
    query = Asker(memory(1).embeddings[0])
    changer = subprocess.Popen([sys.executable, str(HELPERS / "changer.py"), library.address, "5"])
    seen = set()
    while changer.poll() is None:
        found = places(library.recall(query, "x", k=50, among=EventFilter(videos=("/videos/1.mp4",))))
        seen.add(tuple(sorted(position for _, position in found)))
    assert changer.returncode == 0
    assert seen <= {(), tuple(range(5)), tuple(range(8))} and len(seen) > 1
    assert library.videos() == {f"/videos/{number}.mp4": 5 for number in range(6)}


# --- words ----------------------------------------------------------------------------------------------------------

SAID = ["We open the umbrella.", "", "日本の傘", "the UMBRELLA is red", "rain"]


def test_recall_finds_by_words_and_pictures(library, memory):
    library.add([memory(1), memory(2)], [SAID, [""] * 5])
    query = Asker(memory(2).embeddings[1])
    plain = library.recall(query, "Where is it?", k=10)
    found = library.recall(query, "Where is the umbrella?", k=10)
    assert plain[0].source == "/videos/2.mp4" and plain[0].relevance == plain[0].score
    assert {event.text for event in found[:2]} == {SAID[0], SAID[3]}
    assert [event.relevance for event in found] == sorted((event.relevance for event in found), reverse=True)
    cosines = {(event.source, event.position): event.score for event in plain}
    assert {(event.source, event.position): event.score for event in found} == pytest.approx(cosines, abs=1e-6)
    assert library.recall(query, "傘", k=1)[0].text == SAID[2]


def test_the_order_is_that_of_one_video_alone(library, memory):
    """By one index of words or another: what is fused are ranks."""
    one = memory(1, events=40)
    texts = [" ".join(["ball"] * (number % 3) + ["cube"] * (number % 5 == 0) + ["word"]) for number in range(40)]
    library.add([one], [texts])
    query = one.embeddings[7]
    found = library.recall(Asker(query), "the cube", k=40)
    expected = best_first(one.embeddings @ query, word_scores("the cube", texts))
    assert [event.position for event in found] == expected


@pytest.mark.parametrize("question", ["Where is it?", "Is there a zebra?", "", "'; -- \" (cube) AND *"])
def test_where_no_word_matches_recall_is_by_picture(library, memory, question):
    library.add([memory(1), memory(2)], [SAID, [""] * 5])
    query = Asker(memory(2).embeddings[1])
    found = library.recall(query, question, k=4)
    (table,) = library._tables()
    assert found == [replace(event, text=event.text) for event in library.nearest(table, query.vector, 4)]


def test_words_are_found_before_and_after_the_index_takes_them_in(library, memory):
    library.add([memory(1)], [SAID])
    library.optimize()
    library.add([memory(number) for number in range(2, 9)], [["a zebra", "", "", "", ""]] * 7)
    query = Asker(memory(1).embeddings[0])
    for _ in range(2):
        found = library.recall(query, "zebra", k=7)
        assert {(event.text, event.position) for event in found} == {("a zebra", 0)}
        library.optimize()
    library.add([memory(3)], [["a gnu", "", "", "", ""]])
    found = library.recall(query, "zebra", k=8)
    assert [event.text for event in found].count("a zebra") == 6
    assert library.recall(query, "gnu", k=1)[0].source == "/videos/3.mp4"


def test_holds_notices_texts_that_changed(library, memory):
    library.add([memory(1)], [SAID])
    assert library.holds(memory(1), SAID)
    assert not library.holds(memory(1))
    assert not library.holds(memory(1), [*SAID[:4], "snow"])
    library.add([memory(1)], [[*SAID[:4], "snow"]])
    assert library.holds(memory(1), [*SAID[:4], "snow"])
    assert library.videos() == {"/videos/1.mp4": 5}


def test_a_folder_that_is_gone_is_not_an_empty_library(library, memory, tmp_path):
    library.add([memory(1)])
    shutil.rmtree(library.address)
    for use in (
        lambda: library.recall(Asker(memory(1).embeddings[0]), "x"),
        library.videos,
        lambda: library.remove("/videos/1.mp4"),
    ):
        with pytest.raises(ValueError, match=r"library: there is no library here; use `marc remember` first"):
            use()
    assert not Path(library.address).exists()
    assert not library.holds(memory(1))
    library.add([memory(1)])
    assert library.videos() == {"/videos/1.mp4": 5}


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


@pytest.mark.parametrize("limit", [0, 300, 1000, 1500, 2000, 2600])
def test_a_disk_that_is_full_in_the_last_write_of_a_file_loses_nothing(library, memory, limit):
    """LanceDB 0.40 notices a write that failed only in the next one, and takes a cut off file for whole."""
    library.add([memory(1)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        for write in (lambda: library.add([memory(2)]), lambda: library.remove("/videos/1.mp4"), library.optimize):
            with pytest.raises(LibraryError, match=r"cannot write the library .*what it held is untouched"):
                write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert MemoryLibrary(library.address).holds(memory(1))
    assert len(library.recall(Asker(memory(1).embeddings[0]), "anything", k=100)) == 5


def test_a_library_that_vanishes_while_it_is_measured_is_a_clear_error(library, memory, monkeypatch):
    from lancedb.table import LanceTable

    library.add([memory(1)])
    stats = LanceTable.stats

    def vanishing(table):
        shutil.rmtree(library.address)
        return stats(table)

    monkeypatch.setattr(LanceTable, "stats", vanishing)
    with pytest.raises(LibraryError, match="cannot read the library"):
        library.optimize()


def test_what_was_left_whole_is_not_looked_through_again(library, memory, monkeypatch):
    looks = []
    monkeypatch.setattr(library_module, "drop_doubled", looks.append)
    library.add([memory(1)])
    assert not looks
    MemoryLibrary(library.address).add([memory(2)])
    assert not looks
    (table,) = library._tables()
    table.add(rows_of(memory(2), [""] * 5))
    MemoryLibrary(library.address).add([memory(3)])
    assert [each.name for each in looks] == [table.name]


def test_an_answer_is_of_one_version_whoever_writes_meanwhile(library, memory, monkeypatch):
    """Events are searched by words, then by pictures; in between another replaces the video."""
    library.add([memory(1, events=9)], [["a red cross", *["a blue ball"] * 8]])
    search = search_module.matching_events

    def interrupted(*args):
        found = search(*args)
        MemoryLibrary(library.address).add([replace(memory(7, events=3), source="/videos/1.mp4")])
        return found

    monkeypatch.setattr(search_module, "matching_events", interrupted)
    found = library.recall(Asker(memory(1).embeddings[0]), "Where is the red cross?", k=100)
    assert sorted(each.position for each in found) == list(range(9))
    assert library.videos() == {"/videos/1.mp4": 3}


@pytest.mark.parametrize("damage", [3.0, 0.0, 1e20])
def test_damaged_vectors_are_left_out_named_and_healed(library, memory, caplog, damage):
    """By words all events are found, damaged or not; by pictures only those whose vectors compare at all."""
    vectors = memory(1).embeddings.copy()
    vectors[0] = damage
    library.add([replace(memory(1), embeddings=vectors), memory(2)], [SAID, SAID])
    assert not library.holds(memory(1), SAID) and library.holds(memory(2), SAID)
    found = library.recall(Asker(memory(1).embeddings[1]), "umbrella", k=10)
    assert {(one.source, one.position) for one in found} == {
        (f"/videos/{number}.mp4", position) for number in (1, 2) for position in range(5)
    } - {("/videos/1.mp4", 0)}
    assert all(np.isfinite(one.score) and abs(one.score) <= 1.001 for one in found)
    assert "/videos/1.mp4: damaged in the library" in caplog.text and "/videos/2.mp4" not in caplog.text
    library.add([memory(1)], [SAID])
    caplog.clear()
    assert (
        library.holds(memory(1), SAID) and len(library.recall(Asker(memory(1).embeddings[1]), "umbrella", k=10)) == 10
    )
    assert not caplog.text


@pytest.mark.parametrize("share", [0.7, 0.8, 0.9, 1.0])
def test_damaged_files_are_a_library_error_that_says_what_to_do(library, memory, share):
    """Whatever LanceDB raises; a full disk is not blamed for what files hold."""
    library.add([memory(1), memory(2)])
    for file in Path(library.address).rglob("data/*.lance"):
        content = bytearray(file.read_bytes())
        start = int(len(content) * share)
        content[start : start + 24] = b"\x11" * len(content[start : start + 24])
        file.write_bytes(content if share < 1 else b"")
    works = {
        "videos": lambda: MemoryLibrary(library.address).videos(),
        "holds": lambda: MemoryLibrary(library.address).holds(memory(1)),
        "add": lambda: MemoryLibrary(library.address).add([memory(1)]),
        "optimize": lambda: MemoryLibrary(library.address).optimize(),
        "remove": lambda: MemoryLibrary(library.address).remove(memory(1).source),
    }
    raised = {}
    for name, work in works.items():
        try:
            work()
        except LibraryError as error:
            raised[name] = str(error)
    assert raised, "nothing noticed"
    for said in raised.values():
        assert "it may be damaged: delete it, and `marc remember` its videos again" in said
        assert "\n" not in said and ".cargo" not in said and len(said) < 600


def test_without_the_package_its_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(MissingExtraError, match=r"lancedb is not installed.*'\.\[library\]'"):
        MemoryLibrary(tmp_path / "library")


def test_an_address_that_cannot_be_opened_is_named(tmp_path, memory):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(LibraryError, match="file"):
        MemoryLibrary(tmp_path / "file" / "library").add([memory(1)])
