"""Files show the world, and their rows are Video-R1's."""

import json
from pathlib import Path

import numpy as np
import pytest

from marc.evaluation.benchmarks import find_benchmark
from marc.evaluation.reading import load_samples
from marc.grading import grade
from marc.video import probe, read_frames
from marc.world.export import FileOptions, cuts_in_seconds, export_world, write_sample, write_world_video
from marc.world.options import WorldOptions
from marc.world.questions import KINDS
from marc.world.renderer import render_video
from marc.world.scenes import sample_video

SMALL = FileOptions(hold=1, fps=2.0)


@pytest.mark.parametrize("level", ["easy", "hard"])
def test_a_file_gives_back_the_frames(tmp_path: Path, level: str) -> None:
    video = sample_video(level, "test", 0, 0)
    write_world_video(video, tmp_path / "a.mp4", FileOptions(hold=4, fps=8.0))
    wanted = render_video(video)[:64].numpy()
    times = (np.arange(64) + 0.5) * 0.5
    read = read_frames(tmp_path / "a.mp4", times, min_pixels=14 * 14, max_pixels=28 * 28, factor=14)
    difference = np.abs(read.rgb.astype(int) - wanted)
    assert difference.mean(axis=(1, 2, 3)).max() < 15


def test_sampling_two_frames_a_second_reads_every_world_frame_once(tmp_path: Path) -> None:
    video = sample_video("easy", "test", 0, 3)
    write_world_video(video, tmp_path / "a.mp4")
    read = read_frames(tmp_path / "a.mp4", min_pixels=14 * 14, max_pixels=28 * 28, factor=14)
    wanted = render_video(video).numpy()
    assert read.rgb.shape == wanted.shape
    assert np.abs(read.rgb.astype(int) - wanted).mean(axis=(1, 2, 3)).max() < 12


def test_an_exported_set_is_read_as_a_benchmark(tmp_path: Path) -> None:
    path = export_world(tmp_path, WorldOptions(videos=3, questions=6), options=FileOptions(hold=2, fps=4.0))
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert len(rows) == 18 and [row["problem_id"] for row in rows] == list(range(18))
    for row in rows:
        assert probe(tmp_path / row["path"]).duration == pytest.approx(32.0)
        assert row["solution"].startswith("<answer>") and row["process"].startswith("<think>")
        assert bool(row["options"]) == (row["problem_type"] == "multiple choice")
        assert grade(row["process"] + row["solution"], row["solution"], row["problem_type"]) > 0.6
    samples = load_samples(find_benchmark("world"), protocol="official", data=tmp_path)
    assert len(samples) == 18 and all(Path(sample.path).is_file() for sample in samples)
    assert find_benchmark(str(path)).name == f"{tmp_path.name}-world", "not the 100 videos that are made by themselves"


def test_what_is_there_already_is_kept(tmp_path: Path) -> None:
    options = FileOptions(hold=1, fps=2.0)
    first = export_world(tmp_path, WorldOptions(videos=2, questions=3), options=options).read_bytes()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "videos").iterdir()}
    again = export_world(tmp_path, WorldOptions(videos=3, questions=3), options=options).read_bytes()
    assert again.startswith(first[:-4]) and len(list((tmp_path / "videos").iterdir())) == 3
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


@pytest.mark.parametrize(
    ("world", "split", "options", "message"),
    [
        ({"seed": 1}, "test", SMALL, "holds an export of seed 0, not 1; export to another folder, or delete this one"),
        ({"level": "hard"}, "test", SMALL, "holds an export of level easy, not hard"),
        ({"questions": 2}, "test", SMALL, "holds an export of questions 3, not 2"),
        ({"videos": 1}, "test", SMALL, "holds an export of videos 2, not 1"),
        ({}, "train", SMALL, "holds an export of split test, not train"),
        ({}, "test", FileOptions(hold=1, fps=2.0, scale=4), "holds an export of scale 8, not 4"),
    ],
)
def test_an_export_of_other_settings_is_not_overwritten(tmp_path: Path, world, split, options, message) -> None:
    plain = {"videos": 2, "questions": 3}
    export_world(tmp_path, WorldOptions(**plain), options=SMALL)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(ValueError, match=message):
        export_world(tmp_path, WorldOptions(**{**plain, **world}), split=split, options=options)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_an_export_without_its_settings_is_known_by_its_questions(tmp_path: Path) -> None:
    """As older versions wrote them."""
    world = WorldOptions(videos=2, questions=3)
    rows = export_world(tmp_path, world, options=SMALL)
    (tmp_path / "export.json").unlink()
    with pytest.raises(ValueError, match=r"eval_world\.json: holds other questions than are to be written; export to"):
        export_world(tmp_path, WorldOptions(videos=2, questions=3, seed=1), options=SMALL)
    assert export_world(tmp_path, world, options=SMALL) == rows and (tmp_path / "export.json").exists()
    (tmp_path / "export.json").write_text("[]")
    with pytest.raises(ValueError, match=r"export\.json: not of marc world export"):
        export_world(tmp_path, world, options=SMALL)


def test_the_sample_has_several_events(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "sample.mp4", questions=10)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert probe(tmp_path / "sample.mp4").duration == pytest.approx(32.0)
    assert len(content["cuts"]) == 3 and len({row["question_type"] for row in content["questions"]}) == 10


@pytest.mark.parametrize("level", ["easy", "hard"])
def test_a_sample_asks_the_first_kinds_of_its_level(tmp_path: Path, level: str) -> None:
    path = write_sample(tmp_path / "sample.mp4", level=level, questions=4)
    kinds = [row["question_type"] for row in json.loads(path.read_text(encoding="utf-8"))["questions"]]
    order = [kind.replace("_", " ") for kind in KINDS]
    assert [order.index(kind.replace("_", " ")) for kind in kinds] == sorted(
        order.index(kind.replace("_", " ")) for kind in kinds
    )


def test_cuts_are_where_the_picture_changes() -> None:
    video = next(video for i in range(50) if len((video := sample_video("easy", "test", 0, i)).events) == 3)
    frames = render_video(video).float()
    change = (frames[1:] - frames[:-1]).abs().mean((1, 2, 3))
    largest = sorted((change.topk(2).indices + 1).tolist())
    assert cuts_in_seconds(video) == [0.5 * frame for frame in largest]


def test_a_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="hold"):
        FileOptions(hold=0)
