"""A file that is written of rows finds what the file that was read does."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from marc.cli import app
from marc.data.placing import Placement
from marc.data.rows import TrainingRow, read_rows
from marc.evaluation.benchmarks import find_benchmark
from marc.evaluation.reading import load_samples
from marc.video import write_video

ROW = TrainingRow("0", "what?", "free-form", "this", "video", "./videos/a.mp4")


@pytest.fixture
def rows(tmp_path):
    """A file of rows in a folder of its own, with its clip."""
    folder = tmp_path / "w"
    (folder / "videos").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    write_video(folder / "videos" / "a.mp4", noise, fps=8.0)
    (folder / "rows.json").write_text(json.dumps([ROW.to_dict()]))
    return folder / "rows.json"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("output", "named", "written", "told"),
    [
        ("w/clean.json", None, "./videos/a.mp4", None),
        ("clean.json", None, "w/videos/a.mp4", None),
        ("out/clean.json", None, "{here}/w/videos/a.mp4", "its paths are absolute"),
        ("out/clean.json", "w", "./videos/a.mp4", "its paths start from"),
        ("w/clean.json", "w", "./videos/a.mp4", None),
    ],
)
def test_where_paths_start(tmp_path, output, named, written, told):
    root = named and tmp_path / named
    placement = Placement(tmp_path / "w" / "rows.json", tmp_path / output, root)
    assert placement.place(ROW).path == written.format(here=tmp_path)
    remark = placement.remark()
    assert (remark is None) == (told is None)
    assert remark is None or (told in remark and f"read it with --root {tmp_path / 'w'}" in remark)


def test_what_has_no_path_or_an_absolute_one_stays(tmp_path):
    placement = Placement(tmp_path / "w" / "rows.json", tmp_path / "clean.json")
    for path, kind in ((None, "text"), (str(tmp_path / "w" / "a.mp4"), "video")):
        row = TrainingRow("0", "what?", "free-form", "this", kind, path)
        assert placement.place(row) == row


def test_a_link_to_the_folder_is_the_folder(tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "link").symlink_to("w")
    assert Placement(tmp_path / "link" / "rows.json", tmp_path / "w" / "clean.json").place(ROW) == ROW
    above = Placement(tmp_path / "link" / "rows.json", tmp_path / "clean.json")
    assert above.place(ROW).path == "link/videos/a.mp4"


@pytest.mark.parametrize("command", ["check", "cuts"])
@pytest.mark.parametrize("output", ["w/new.json", "new.json", "out/new.json"])
def test_what_is_written_is_read_where_it_lies(rows, tmp_path, monkeypatch, command, output):
    """By the next command, from any folder, and by evaluation; beside the videos' folder, with it named."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    done = run("data", command, "w/rows.json", output)
    assert done.exit_code == 0, done.output
    root = ["--root", "w"] if output.startswith("out") else []
    assert ("read it with --root w" in done.output) == bool(root)
    again = run("data", "check", output, "again.json", *root)
    assert again.exit_code == 0, again.output
    monkeypatch.chdir("/")
    written = tmp_path / output
    (file,) = json.loads(written.read_text())["files"]
    clip = tmp_path / "w" / "videos" / "a.mp4"
    assert file["bytes"] == clip.stat().st_size
    assert file["path"] == read_rows(written, allow_outside=bool(root))[0].path
    (sample,) = load_samples(
        find_benchmark(str(written)), protocol="video-r1", data=tmp_path, allow_outside=bool(root)
    )
    assert sample.path == str(clip)


def test_a_named_folder_holds_for_all_files(rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "lists").mkdir()
    rows.rename(tmp_path / "lists" / "rows.json")
    for read, output in (("lists/rows.json", "out/one.json"), ("out/one.json", "two.json")):
        done = run("data", "check", read, output, "--root", "w")
        assert done.exit_code == 0 and f"{output}: its paths start from w" in done.output, done.output
        assert read_rows(output, "w")[0].path == "./videos/a.mp4"
