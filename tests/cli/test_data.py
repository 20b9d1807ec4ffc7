"""``marc data teacher`` from the command line, on checkpoints of every family."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from marc.cli import app
from marc.model.family import families
from marc.model.tiny import build_tiny
from marc.training import teacher
from marc.video import write_video

ROW = {"problem": "What moves?", "problem_type": "OCR", "solution": "<answer>a cat</answer>"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    """A row about a clip and one about nothing."""
    folder = tmp_path_factory.mktemp("rows")
    write_video(folder / "a.mp4", np.random.default_rng(0).integers(0, 255, (16, 56, 56, 3), dtype=np.uint8), fps=8)
    about = [{"data_type": "video", "path": "a.mp4"}, {"data_type": "text", "path": ""}]
    (folder / "rows.json").write_text(json.dumps([{**ROW, "problem_id": n, **row} for n, row in enumerate(about)]))
    return folder / "rows.json"


def test_every_familys_teacher_is_asked_once_and_known_by_its_weights(rows, tmp_path, monkeypatch):
    asked = []
    answers = teacher.answers

    def counted(prompts, files, engine, options):
        asked.append(engine.model.family.name)
        said = answers(prompts, files, engine, options)
        assert len(said) == 1 and len(said[0]) == 2
        return said

    monkeypatch.setattr(teacher, "answers", counted)
    names = [family.name for family in families()]
    for family in names:
        for part in build_tiny(family=family):
            part.save_pretrained(tmp_path / family)
    for family in 2 * names:
        options = ["--model", tmp_path / family, "--samples", 2, "--max-new-tokens", 3, "--max-frames", 4]
        arguments = ["data", "teacher", rows, tmp_path / "taught.json", "--cache", tmp_path / "cache", *options]
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert done.exit_code == 0, done.output
        taught = json.loads((tmp_path / "taught.json").read_text())["rows"]
        assert [row.get("a_full") is None for row in taught] == [False, True]
    assert asked == names, "the second time all is known"
