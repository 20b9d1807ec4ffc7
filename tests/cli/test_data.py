"""``marc data teacher`` on checkpoints of every family and ``marc data cuts``, from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from marc.cli import app
from marc.data.rows import read_rows
from marc.inference.hf import HFBackend
from marc.inference.vllm_backend import VllmBackend
from marc.io import sha256_file
from marc.model.family import families
from marc.model.loading import load_model
from marc.model.tiny import build_tiny
from marc.training import teacher
from marc.training.reader import VisualSource
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


def test_cuts_are_where_the_memory_begins_events(tmp_path):
    """Of each video once; a row about nothing stays, one about a video that cannot be read is named and left out."""
    rng = np.random.default_rng(0)
    places = rng.integers(0, 255, (3, 8, 8, 3), dtype=np.uint8).repeat(14, 1).repeat(14, 2)
    write_video(tmp_path / "cut.mp4", places.repeat(32, 0), fps=8)
    write_video(tmp_path / "whole.mp4", places[:1].repeat(64, 0), fps=8)
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    about = [("video", "cut.mp4"), ("text", ""), ("video", "whole.mp4"), ("video", "broken.mp4"), ("video", "cut.mp4")]
    rows = [{**ROW, "problem_id": n, "data_type": kind, "path": path} for n, (kind, path) in enumerate(about)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    for _ in range(2):  # the second time all but the broken one is known
        done = CliRunner().invoke(app, ["data", "cuts", str(tmp_path / "rows.json"), str(tmp_path / "cut.json")])
        assert done.exit_code == 1 and "broken.mp4" in done.output, done.output
        assert "4 rows, 2 videos of 4 events; 1 left out" in done.stdout
        written = read_rows(tmp_path / "cut.json", tmp_path)
        assert [row.problem_id for row in written] == ["0", "1", "2", "4"]
        assert [row.cuts for row in written] == [(4.0, 8.0), None, (), (4.0, 8.0)]
        assert VisualSource("video", "a", written[2].cuts).cuts == (), "one event, not one for each grid"
    head = json.loads((tmp_path / "cut.json").read_text())
    assert head["files"][0]["sha256"] == sha256_file(tmp_path / "cut.mp4")
    assert (head["embedder"], head["events"]["segmenter"]) == ("tiny", "transnetv2")


def test_cuts_are_of_the_files_that_a_manifest_names(tmp_path):
    write_video(tmp_path / "a.mp4", np.zeros((16, 56, 56, 3), dtype=np.uint8), fps=8)
    row = {**ROW, "problem_id": 1, "data_type": "video", "path": "a.mp4"}
    manifest = {"rows": [row], "files": [{"path": "a.mp4", "sha256": 64 * "0"}]}
    (tmp_path / "rows.json").write_text(json.dumps(manifest))
    (tmp_path / "cut.json").write_text("as it was")
    done = CliRunner().invoke(app, ["data", "cuts", str(tmp_path / "rows.json"), str(tmp_path / "cut.json")])
    assert done.exit_code and "its checksum differs) (problem_id 1)" in done.output
    assert "none of its 1 videos could be read" in done.output
    assert (tmp_path / "cut.json").read_text() == "as it was"
