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
from marc.memory.library import LibraryError, MemoryLibrary
from marc.memory.ranking import best_first, word_scores
from marc.memory.tables import rows_of
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
    assert sorted(index.index_type for index in table.list_indices()) == ["FTS", "IvfSq"]
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
    library.add([memory(1)])
    is_file = Path.is_file

    def vanishing(path):
        shutil.rmtree(library.address, ignore_errors=True)
        return is_file(path) or path.stat()

    monkeypatch.setattr(Path, "is_file", vanishing)
    with pytest.raises(LibraryError, match="cannot read the library"):
        library.optimize()


def test_an_answer_is_of_one_version_whoever_writes_meanwhile(library, memory, monkeypatch):
    """Events are searched by words, then by pictures; in between another replaces the video."""
    library.add([memory(1, events=9)], [["a red cross", *["a blue ball"] * 8]])
    search = library_module.matching_events

    def interrupted(*args):
        found = search(*args)
        MemoryLibrary(library.address).add([replace(memory(7, events=3), source="/videos/1.mp4")])
        return found

    monkeypatch.setattr(library_module, "matching_events", interrupted)
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
    with pytest.raises(MissingExtraError, match=r"lancedb is not installed.*marc-video\[library\]"):
        MemoryLibrary(tmp_path / "library")


def test_an_address_that_cannot_be_opened_is_named(tmp_path, memory):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(LibraryError, match="file"):
        MemoryLibrary(tmp_path / "file" / "library").add([memory(1)])
