"""Files, folders, patterns and lists of videos."""

import os
from pathlib import Path

import pytest

from marc.cli.inputs import video_files


@pytest.fixture
def films(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("films/b.mp4", "films/a.MKV", "films/deep/c.webm", "films/notes.txt", "odd [1].mp4", "@home.mp4"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_a_folder_stands_for_all_videos_below_it(films):
    assert video_files(["films"]) == ["films/a.MKV", "films/b.mp4", "films/deep/c.webm"]


def test_a_folder_also_stands_for_pictures_where_they_can_be_asked_about(films):
    for name in ("films/c.JPG", "films/deep/d.png", "films/moving.webp"):
        (films / name).touch()
    assert video_files(["films"], with_pictures=True) == [
        *("films/a.MKV", "films/b.mp4", "films/c.JPG", "films/deep/c.webm", "films/deep/d.png", "films/moving.webp")
    ]
    assert video_files(["films"]) == ["films/a.MKV", "films/b.mp4", "films/deep/c.webm"]
    (films / "empty" / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"empty: no video or picture in this folder; known are .*\.png"):
        video_files(["empty"], with_pictures=True)


def test_a_file_is_taken_whatever_it_is_called_and_each_once(films):
    assert video_files(["films/notes.txt", Path("films/b.mp4"), "films/b.mp4", "missing.mp4"]) == [
        "films/notes.txt",
        "films/b.mp4",
        "missing.mp4",
    ]
    assert video_files(["odd [1].mp4", "@home.mp4"]) == ["odd [1].mp4", "@home.mp4"]


def test_a_pattern_is_resolved_where_the_shell_did_not(films):
    assert video_files(["films/*.mp4", str(films / "*.mp4")]) == [
        "films/b.mp4",
        str(films / "@home.mp4"),
        str(films / "odd [1].mp4"),
    ]


def test_a_list_names_one_on_each_line(films):
    (films / "list.txt").write_text("films/b.mp4\n\n  films/deep  \n")
    assert video_files(["@list.txt"]) == ["films/b.mp4", "films/deep/c.webm"]


def test_a_list_may_hold_comments(films):
    (films / "#1.mp4").touch()
    (films / "list.txt").write_text("# of today\nfilms/b.mp4\n  #films/a.MKV\n./#1.mp4\n")
    assert video_files(["@list.txt"]) == ["films/b.mp4", "./#1.mp4"]
    (films / "list.txt").write_text("# nothing yet\n")
    with pytest.raises(ValueError, match="the list is empty"):
        video_files(["@list.txt"])


@pytest.mark.parametrize(
    ("named", "message"),
    [("empty", "empty: no video in this folder"), ("*.avi", r"\*\.avi: no file is called so")],
)
def test_what_names_nothing_is_an_error(named, message, films):
    with pytest.raises(ValueError, match=message):
        video_files([named])
    (films / "list.txt").write_text("\n")
    with pytest.raises(ValueError, match="the list is empty"):
        video_files(["@list.txt"])
    (films / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="a list of videos is a text"):
        video_files(["@list.txt"])
    with pytest.raises(FileNotFoundError):
        video_files(["@missing.txt"])


def test_a_list_may_hold_names_that_are_not_utf_8_and_others_that_are_none(films):
    strange = os.fsdecode(b"caf\xe9.mp4")
    impossible = "x" * 5000 + ".mp4"
    (films / "list.txt").write_bytes(os.fsencode(f"{strange}\n{impossible}\nfilms/b.mp4\n"))
    assert video_files(["@list.txt"]) == [strange, impossible, "films/b.mp4"]
    assert video_files(["a\0*.mp4", impossible]) == ["a\0*.mp4", impossible]


def test_a_list_that_names_itself_is_refused(films):
    (films / "list.txt").write_text("films/b.mp4\n@other.txt\n")
    (films / "other.txt").write_text("@list.txt\n")
    with pytest.raises(ValueError, match="names itself"):
        video_files(["@list.txt"])
