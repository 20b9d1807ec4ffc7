import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from marc.cli import app
from marc.data.check import CheckOptions, check_files, problem_with
from marc.data.rows import TrainingRow, read_rows
from marc.video import write_video


@pytest.fixture
def folder(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "good.mp4", noise, fps=4.0)
    whole = (tmp_path / "good.mp4").read_bytes()
    (tmp_path / "broken.mp4").write_bytes(whole[: len(whole) // 3])
    Image.fromarray(noise[0]).save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:200])
    return tmp_path


def row(identity: str, path: str | None, data_type: str = "video") -> TrainingRow:
    return TrainingRow(identity, "what?", "free-form", "this", data_type, path)


ROWS = [
    row("0", "good.mp4"),
    row("1", "broken.mp4"),
    row("2", "good.mp4"),
    row("3", "missing.mp4"),
    row("4", "good.png", "image"),
    row("5", "broken.png", "image"),
    row("6", None, "text"),
]


ALONE = CheckOptions(workers=1)


def test_every_file_is_read_once(folder):
    results = {file.path: file for file in check_files(ROWS, folder, CheckOptions(timeout=30))}
    assert results["good.mp4"].users == ("0", "2")
    assert {path for path, file in results.items() if file.problem} == {"broken.mp4", "missing.mp4", "broken.png"}


def test_good_files_are_not_read_again_until_they_change(folder, monkeypatch):
    journal, read = folder / "journal", []

    def watched(path, *args, **kwargs):
        read.append(path.name)
        return problem_with(path, *args, **kwargs)

    monkeypatch.setattr("marc.data.check.problem_with", watched)
    first = [next(check_files(ROWS, folder, ALONE, journal=journal))]
    assert first[0].problem is None, "then it is killed"
    read.clear()
    again = list(check_files(ROWS, folder, ALONE, journal=journal))
    assert "good.mp4" not in read and "broken.mp4" in read
    assert again == list(check_files(ROWS, folder, ALONE))
    Image.new("RGB", (64, 64)).save(folder / "good.png")
    read.clear()
    list(check_files(ROWS, folder, ALONE, journal=journal))
    assert "good.png" in read and "good.mp4" not in read


def test_whatever_a_library_raises_is_the_files_problem(folder, monkeypatch):
    def broken(*args, **kwargs):
        raise SyntaxError("broken PNG file")

    monkeypatch.setattr(Image, "open", broken)
    assert problem_with(folder / "good.png", "image").endswith("(SyntaxError: broken PNG file)")


def test_a_changed_file_is_found(folder):
    (file,) = check_files(ROWS[:1], folder, checksums={"good.mp4": "0" * 64})
    assert "checksum" in file.problem


def test_sample_and_check_write_what_training_reads(folder):
    (folder / "rows.json").write_text(json.dumps([*(row.to_dict() for row in ROWS), {"problem_id": 9}]))
    run = CliRunner().invoke
    sampled = run(app, ["data", "sample", str(folder / "rows.json"), str(folder / "sample.json"), "--n", "7"])
    assert sampled.exit_code == 0, sampled.output
    assert "left out: row 7 (problem_id 9)" in sampled.output
    checked = run(app, ["data", "check", str(folder / "sample.json"), str(folder / "clean.json")])
    assert checked.exit_code == 1, checked.output
    assert "missing.mp4 (problem_id 3): there is no such file" in checked.output
    assert [row.problem_id for row in read_rows(folder / "clean.json")] == ["0", "2", "4", "6"]
    again = run(app, ["data", "check", str(folder / "clean.json"), str(folder / "again.json")])
    assert again.exit_code == 0, again.output


def test_too_large_a_sample_is_one_line(folder):
    (folder / "rows.json").write_text(json.dumps([ROWS[0].to_dict()]))
    result = CliRunner().invoke(app, ["data", "sample", str(folder / "rows.json"), str(folder / "s.json")])
    assert result.exit_code == 2
    assert "cannot sample 5000 of 1 rows" in result.output
