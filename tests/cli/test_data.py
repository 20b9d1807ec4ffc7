"""``marc data teacher`` from the command line, on checkpoints of every family."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from marc.cli import app
from marc.inference.hf import HFBackend
from marc.inference.vllm_backend import VllmBackend
from marc.model.family import families
from marc.model.loading import load_model
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


def test_another_engine_is_asked_anew_and_once(rows, tmp_path, monkeypatch):
    """Its samples are others, so that its results have keys of their own."""
    asked = []

    class OtherEngine(HFBackend):
        def sample(self, prompts, options, samples):
            asked.append(len(prompts))
            return super().sample(prompts, options, samples)

    def load(name, **options):
        assert options.pop("target_frames") is None and set(options) == {"device", "dtype", "attn_implementation"}
        return OtherEngine(*load_model(name, target_frames=None))

    monkeypatch.setattr(VllmBackend, "from_pretrained", load)
    for part in build_tiny():
        part.save_pretrained(tmp_path / "model")
    arguments = ["data", "teacher", rows, tmp_path / "taught.json", "--model", tmp_path / "model"]
    for engine in ("hf", "vllm", "vllm", "hf"):
        options = ["--samples", 2, "--max-new-tokens", 3, "--max-frames", 4, "--backend", engine]
        done = CliRunner().invoke(app, [str(argument) for argument in (*arguments, *options)])
        assert done.exit_code == 0, done.output
    assert asked == [1]
    assert len((tmp_path / "teacher" / "teacher-0.jsonl").read_text().splitlines()) == 2
