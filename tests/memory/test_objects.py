"""Videos in an object store, which here is a folder; `test_object_store.py` has a server."""

import os
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from marc.cli.ask import StretchOptions, clips_of
from marc.memory import objects, workers
from marc.memory.library import MemoryLibrary
from marc.memory.objects import fetched, kept, listed, look_up
from marc.memory.search import RecalledEvent
from marc.memory.sheet import write_sheet
from marc.memory.workers import Task
from marc.types import Event
from marc.video import VideoError

ENDINGS = {".mp4"}
FILM = "s3://bucket/films/rgb.mp4"


class FolderStore(DirFileSystem):
    """Objects are the files below the current folder. It notes what is fetched, and raises what stores raise."""

    protocol = "s3"
    cachable = False
    fetches: list[str] = []  # noqa: RUF012

    def __init__(self, **settings):
        super().__init__(path=os.getcwd(), fs=LocalFileSystem())

    def info(self, path, **options):
        if "denied" in path:
            raise PermissionError("Forbidden")
        if "broken" in path:
            raise RuntimeError("the store is on fire")
        return super().info(path, **options)

    def get_file(self, path, target, **options):
        self.fetches.append(Path(path).name)
        super().get_file(path, target, **options)


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> Path:
    """The folder that ``s3://bucket`` stands for."""
    known = fsspec.get_filesystem_class("s3")
    fsspec.register_implementation("s3", FolderStore, clobber=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(FolderStore, "fetches", [])
    (tmp_path / "bucket" / "films").mkdir(parents=True)
    yield tmp_path / "bucket"
    fsspec.register_implementation("s3", known, clobber=True)


@pytest.fixture
def film(bucket, write_colours) -> Path:
    """What is at the address `FILM`."""
    return write_colours(bucket / "films" / "rgb.mp4", "red", "green", "blue")


@pytest.fixture
def task(colours, tmp_path):
    return Task(colours.ColourEmbedder, colours.OPTIONS, tmp_path / "memories", "auto")


def work_left(tmp_path) -> list[Path]:
    return list((tmp_path / "cache" / "marc" / "objects" / "work").iterdir())


def test_an_object_is_remembered_as_a_file_is_and_fetched_once(film, task, tmp_path):
    of_file, first, again = task.outcome(str(film)), task.outcome(FILM), task.outcome(FILM)
    assert FolderStore.fetches == ["rgb.mp4"]
    for outcome in (first, again):
        assert (outcome.video, outcome.memory.source, outcome.known) == (FILM, FILM, True)
        assert outcome.memory.key == of_file.memory.key and outcome.memory.events == of_file.memory.events
        assert np.array_equal(outcome.memory.embeddings, of_file.memory.embeddings)
    assert work_left(tmp_path) == []


def test_an_object_that_has_changed_is_fetched_again(film, task, write_colours):
    assert not task.outcome(FILM).known
    write_colours(film, "blue", "red", "green")
    assert not task.outcome(FILM).known
    assert FolderStore.fetches == ["rgb.mp4"] * 2


def test_subtitles_beside_an_object_are_read_and_known_without_it(film, task):
    film.with_suffix(".srt").write_text("1\n00:00:00,100 --> 00:00:01,000\nan umbrella\n")
    first, again = task.outcome(FILM), task.outcome(FILM)
    assert first.texts == again.texts == ("an umbrella", "", "")
    assert first.subtitles == again.subtitles == "rgb.srt"
    assert FolderStore.fetches == ["rgb.srt", "rgb.mp4"]


def test_subtitles_that_have_changed_are_read_again(film, task):
    subtitles = film.with_suffix(".srt")
    assert task.outcome(FILM).texts == ("", "", "")
    for said in ("an umbrella", "a longer umbrella"):
        subtitles.write_text(f"1\n00:00:00,100 --> 00:00:01,000\n{said}\n")
        for _ in range(2):
            outcome = task.outcome(FILM)
            assert outcome.known and outcome.texts == (said, "", "")
    subtitles.unlink()
    assert task.outcome(FILM).texts == ("", "", "")
    assert FolderStore.fetches.count("rgb.mp4") == 4, "once for each state of the subtitles"


def test_subtitles_that_could_not_be_read_are_named_and_tried_again(film, task):
    subtitles = film.with_suffix(".srt")
    subtitles.touch()
    for _ in range(2):
        assert f"left out: {FILM.removesuffix('.mp4')}.srt: the file is empty" in task.outcome(FILM).remark
    subtitles.write_text("1\n00:00:00,100 --> 00:00:01,000\nan umbrella\n")
    again = task.outcome(FILM)
    assert again.remark is None and again.texts == ("an umbrella", "", "")


def test_subtitles_that_fail_once_are_tried_again(film, task, monkeypatch):
    film.with_suffix(".srt").write_text("1\n00:00:00,100 --> 00:00:01,000\nan umbrella\n")

    def failing(*_):
        raise VideoError("the disk is asleep")

    with monkeypatch.context() as patch:
        patch.setattr(workers, "read_subtitles", failing)
        assert "the disk is asleep" in task.outcome(FILM).remark
    again = task.outcome(FILM)
    assert again.remark is None and again.texts == ("an umbrella", "", "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.mp4", "there is no such object; check the address"),
        ("denied.mp4", "the store denies access; check the keys"),
        ("broken.mp4", "cannot be fetched: RuntimeError: the store is on fire"),
        ("empty.mp4", "the object is empty"),
        ("letter.mp4", "letter.mp4: "),
        ("", "this is no object but what others lie below"),
    ],
)
def test_errors_name_the_address(bucket, task, tmp_path, name, message):
    (bucket / "empty.mp4").touch()
    (bucket / "letter.mp4").write_text("Dear reader")
    with pytest.raises(VideoError) as raised:
        task.outcome(f"s3://bucket/{name}")
    assert str(raised.value).startswith(f"s3://bucket/{name}: ") and message in str(raised.value)
    assert str(tmp_path) not in str(raised.value) and "\n" not in str(raised.value)


def test_an_object_that_changes_while_it_is_fetched_is_refused(film, task, monkeypatch, tmp_path):
    def changing(store, path, target, **options):
        Path(target).write_bytes(film.read_bytes())
        film.write_bytes(b"another")

    monkeypatch.setattr(FolderStore, "get_file", changing)
    with pytest.raises(VideoError, match="changed while it was fetched"):
        task.outcome(FILM)
    assert work_left(tmp_path) == []


def test_what_killed_workers_have_left_goes_and_what_others_use_stays(film, tmp_path):
    stored = look_up(FILM)
    with fetched(stored) as file:
        left = file.parent.with_name(file.parent.name.replace(str(os.getpid()), str(2**22 + 1)))
        left.mkdir()
        with fetched(stored) as other:
            assert file.read_bytes() == other.read_bytes() and file != other
            assert not left.exists()
    assert work_left(tmp_path) == []


def test_what_another_machine_works_with_stays(film, tmp_path, monkeypatch):
    monkeypatch.setattr(objects.socket, "gethostname", lambda: "node")
    gone = 2**22 + 1  # no process has this number
    work = tmp_path / "cache" / "marc" / "objects" / "work"
    ours, theirs = work / f"node-{gone}-ab_c", work / f"node-{gone}-{gone}-ab_c"
    for folder in (ours, theirs):
        folder.mkdir(parents=True)
    with fetched(look_up(FILM)):
        assert theirs.exists() and not ours.exists()


def test_folders_and_patterns_of_a_store(bucket):
    for name in ("films/b.mp4", "films/a.MP4", "films/a.txt", "films/deep/c.mp4", "odd [1].mp4", "raw"):
        (bucket / name).parent.mkdir(exist_ok=True)
        (bucket / name).write_text("x")
    films = ["s3://bucket/films/a.MP4", "s3://bucket/films/b.mp4", "s3://bucket/films/deep/c.mp4"]
    assert listed("s3://bucket/films", ENDINGS) == listed("s3://bucket/films/", ENDINGS) == films
    assert listed("s3://bucket/films/*.mp4", ENDINGS) == ["s3://bucket/films/b.mp4"]
    for one in ("s3://bucket/odd [1].mp4", "s3://bucket/raw", "s3://bucket/taken-at-its-word.mp4"):
        assert listed(one, ENDINGS) == [one]
    for none in ("s3://bucket/*.mkv", "s3://bucket/none", "s3://bucket/denied"):
        with pytest.raises(VideoError, match=f"^{none.replace('*', '.')}: "):
            listed(none, ENDINGS)


@pytest.fixture
def three(bucket, monkeypatch) -> list[str]:
    """The addresses of three objects, of which there is room for two copies."""
    for index, name in enumerate("abc"):
        (bucket / f"{name}.mp4").write_bytes(bytes([index]) * 1000)
    monkeypatch.setattr(objects, "KEPT_BYTES", 2500)
    return [f"s3://bucket/{name}.mp4" for name in "abc"]


def unused_for(seconds: float, file: Path) -> None:
    mark = file.parent / ".used"
    os.utime(mark, (time.time() - seconds,) * 2)


def test_copies_are_kept_while_there_is_room(bucket, three):
    first, second = kept(three[:2])
    unused_for(2000, first)
    unused_for(1000, second)
    assert kept(three[:1]) == [first] and FolderStore.fetches == ["a.mp4", "b.mp4"]
    (third,) = kept(three[2:])
    assert first.exists() and third.exists() and not second.exists()
    (bucket / "a.mp4").write_bytes(b"anew")
    assert kept(three[:1]) != [first]


def test_no_copy_makes_room_for_another_of_the_same_question(three, monkeypatch):
    monkeypatch.setattr(objects, "IN_USE", 0.0)
    (old,) = kept(three[:1])
    unused_for(1000, old)
    assert all(copy.exists() for copy in kept([three[1], three[2]])) and not old.exists()
    assert all(copy.exists() for copy in kept(three)), "more than there is room for"


def test_no_copy_makes_room_that_was_just_used(three):
    assert all(copy.exists() for copy in [kept([address])[0] for address in three])


def test_the_subtitles_of_a_copy_are_those_of_now(film):
    (copy,) = kept([FILM])
    for name, said in ((".srt", "one"), (".srt", "another"), (".vtt", "a third")):
        for suffix in (".srt", ".vtt"):
            film.with_suffix(suffix).unlink(missing_ok=True)
        film.with_suffix(name).write_text(said)
        for _ in range(2):
            assert kept([FILM]) == [copy]
        assert {file.name: file.read_text() for file in copy.parent.glob("rgb.*t")} == {f"rgb{name}": said}
    assert FolderStore.fetches == ["rgb.mp4", "rgb.srt", "rgb.srt", "rgb.vtt"]


def test_a_question_about_several_objects_has_them_all(three, bucket):
    (bucket / "own.mp4").write_text("no object")
    clips = clips_of([three[0], str(bucket / "own.mp4"), *three[1:]], StretchOptions())
    assert [Path(clip.source).name for clip in clips] == ["a.mp4", "own.mp4", "b.mp4", "c.mp4"]
    assert all(Path(clip.source).exists() for clip in clips)


def test_the_library_knows_objects_by_their_address(film, task, tmp_path):
    library = MemoryLibrary(tmp_path / "library")
    library.add([task.outcome(FILM).memory, task.outcome(str(film)).memory])
    (table,) = library._tables()
    found = library.nearest(table, np.float32([1, 0, 0]), 1)[0]
    assert isinstance(found, RecalledEvent) and found.position == 0
    assert set(library.videos()) == {FILM, str(film)}
    assert library.remove(FILM) == 3 and set(library.videos()) == {str(film)}


def test_the_sheet_shows_objects(film, task, tmp_path):
    from PIL import Image

    memory = task.outcome(FILM).memory
    there = RecalledEvent(FILM, memory.content, 0, memory.events[0], 0.9)
    gone = RecalledEvent("s3://bucket/gone.mp4", memory.content, 0, Event(0, 1), 0.8)
    write_sheet(tmp_path / "sheet.png", [there, gone])
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    red, _, _ = sheet[98, 168].tolist()
    assert red > 150 and sheet[98, 168, 1:].max() < 100
    assert set(map(tuple, sheet[20, 350:600].tolist())) == {(211, 211, 211)}


def test_the_environment_says_where_a_store_is(monkeypatch):
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert objects._s3_settings() == {"anon": False, "client_kwargs": {}}
    monkeypatch.setenv("AWS_ENDPOINT", "http://here:1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "there")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "True")
    client = {"endpoint_url": "http://here:1", "region_name": "there"}
    assert objects._s3_settings() == {"anon": True, "client_kwargs": client}
