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

    monkeypatch.setattr("marc.data.check.read_picture", broken)
    assert problem_with(folder / "good.png", "image") == "SyntaxError: broken PNG file"


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


def test_one_bad_name_stops_nothing(folder):
    """Names that no file can have, or that no terminal should show, are one line each; the rest goes on."""
    names = ["a\0b.mp4", "x" * 5000, "half\ud800.mp4", "caf\udce9.mp4", "\x1b[31mred.mp4", "../out.mp4", "good.mp4"]
    lines = [json.dumps({**ROWS[0].to_dict(), "problem_id": index, "path": name}) for index, name in enumerate(names)]
    deep = '{"problem_id": 7, "problem": ' + "[" * 100_000
    (folder / "rows.jsonl").write_text("\n".join([*lines[:3], deep, *lines[3:]]))
    checked = CliRunner().invoke(app, ["data", "check", str(folder / "rows.jsonl"), str(folder / "clean.json")])
    assert checked.exit_code == 1, checked.output
    said = checked.output
    assert "row 0 (problem_id 0): the column 'path' holds what no file name has" in said
    assert "(problem_id 1): there is no such file" in said
    assert "row 2 (problem_id 2)" in said
    assert "row 3 (problem_id ?): line 4: nested too deeply" in said
    assert "(problem_id 3): there is no such file" in said
    assert "row 6 (problem_id 5): the path '../out.mp4' leads out of" in said
    assert "1 rows can be used; 7 cannot" in said
    assert [row.problem_id for row in read_rows(folder / "clean.json")] == ["6"]


def test_files_outside_the_folder_are_read_if_the_user_says_so(folder):
    inner = folder / "inner"
    inner.mkdir()
    (inner / "rows.json").write_text(json.dumps([{**ROWS[0].to_dict(), "path": "../good.mp4"}]))
    arguments = ["data", "check", str(inner / "rows.json"), str(inner / "clean.json")]
    assert "leads out of" in CliRunner().invoke(app, arguments).output
    allowed = CliRunner().invoke(app, [*arguments, "--allow-outside"])
    assert allowed.exit_code == 0, allowed.output
    arguments = ["data", "sample", str(inner / "rows.json"), str(inner / "sample.json"), "--n", "1"]
    assert "leads out of" in CliRunner().invoke(app, arguments).output
    assert "1 files (1 of them are there)" in CliRunner().invoke(app, [*arguments, "--allow-outside"]).output


@pytest.mark.parametrize("files", ["x", [5], [{"sha256": "0"}], [{"path": 3, "sha256": "0"}], {"a": 1}])
def test_a_manifest_whose_files_are_none_is_named(folder, files):
    (folder / "m.json").write_text(json.dumps({"rows": [ROWS[0].to_dict()], "files": files}))
    result = CliRunner().invoke(app, ["data", "check", str(folder / "m.json"), str(folder / "clean.json")])
    assert result.exit_code == 2 and "m.json" in result.output, result.output


def test_a_damaged_journal_is_done_without(folder):
    (folder / "clean.json.journal").write_bytes(b"\xff\xfe\n{half a line")
    (folder / "rows.json").write_text(json.dumps([ROWS[0].to_dict()]))
    result = CliRunner().invoke(app, ["data", "check", str(folder / "rows.json"), str(folder / "clean.json")])
    assert result.exit_code == 0, result.output


def test_too_large_a_sample_is_one_line(folder):
    (folder / "rows.json").write_text(json.dumps([ROWS[0].to_dict()]))
    result = CliRunner().invoke(app, ["data", "sample", str(folder / "rows.json"), str(folder / "s.json")])
    assert result.exit_code == 2
    assert "cannot sample 5000 of 1 rows" in result.output


def test_rows_whose_gold_is_never_paid_are_named_counted_and_mended(folder):
    flawed = [
        {"problem_type": "multiple choice", "solution": "<answer>b.</answer>", "options": ["A. x", "B. y"]},
        {"problem_type": "numerical", "solution": "12 cm", "problem": "<image>How long?"},
        {"problem_type": "regression", "solution": "0"},
        {"problem_type": "free-form", "solution": "<answer></answer>"},
        {
            "problem_type": "multiple choice",
            "solution": "A",
            "options": ["A. x", "B. x"],
            "process": "<think>x</think>",
        },
    ]
    lines = [json.dumps({**row("1", "good.mp4").to_dict(), **each}) for each in flawed]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    arguments = ["data", "check", str(folder / "rows.jsonl"), str(folder / "clean.json")]
    plain = CliRunner().invoke(app, arguments)
    assert plain.exit_code == 1
    for said in (
        "row 0 (problem_id 1): needs the letter alone; --fix mends that",
        "row 1 (problem_id 1): needs the number alone; no literal <image> or <video>; --fix mends that",
        "row 2 (problem_id 1): the gold answer 0 is 0 or next to it, for which the regression reward pays nothing",
        "row 3 (problem_id 1): the solution is empty",
        "1 rows: options that repeat",
        "3 rows: a problem_id that another row has",
        "1 rows can be used; 4 cannot",
    ):
        assert said in plain.output, plain.output
    assert not (folder / "clean.json.mended.jsonl").exists()
    fixed = CliRunner().invoke(app, [*arguments, "--fix"])
    assert "1 rows: mended: the letter alone" in fixed.output and "3 rows can be used; 2 cannot" in fixed.output
    first, second, third = read_rows(folder / "clean.json")
    assert (first.solution, second.solution, third.solution) == ("<answer>B</answer>", "<answer>12</answer>", "A")
    assert second.problem == "How long?"
    told = [json.loads(line) for line in (folder / "clean.json.mended.jsonl").read_text().splitlines()]
    assert [line["row"] for line in told] == [0, 1]
    assert told[0]["changed"] == {"solution": ["<answer>b.</answer>", "<answer>B</answer>"]}
