"""``marc eval`` and ``marc report`` from the command line: scripted answers, then the real path on real files."""

import importlib
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from marc.cli import app
from marc.data.prompts import render_question
from marc.inference.thinking import BEGINNING
from marc.model.family import families
from marc.model.loading import load_processor
from marc.model.tiny import build_tiny
from marc.types import Answer, GenerationOptions
from marc.video import VideoError

PLAIN = {
    "problem": "What moves?",
    "options": ["A. a cat", "B. a dog"],
    "data_type": "video",
    "problem_type": "multiple choice",
    "solution": "<answer>B</answer>",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two clips, a text file that is called one, and a file that is not there; 8 questions."""
    from marc.video import write_video

    folder = tmp_path_factory.mktemp("data")
    frames = np.random.default_rng(0).integers(0, 255, (40, 56, 56, 3), dtype=np.uint8)
    for name in ("a.mp4", "b.mp4"):
        write_video(folder / name, frames, fps=8)
    (folder / "broken.mp4").write_text("not a video")
    names = ["a.mp4", "b.mp4", "broken.mp4", "missing.mp4"] * 2
    (folder / "eval_mmvu.json").write_text(json.dumps([{**PLAIN, "path": f"./{name}"} for name in names]))
    return folder


@pytest.fixture
def scripted(monkeypatch):
    """Every method answers B; what was asked is kept."""
    asked = []

    class Engine:
        def __init__(self, method, options):
            self.model, self.method = options.model.name, method
            asked.append((self.model, method.name, options))

        def answer(self, samples, generation):
            asked.append(generation)
            return [Answer("", "<answer>B</answer>") for _ in samples]

        def card(self):
            return {"model": self.model}

    monkeypatch.setattr("marc.evaluation.evaluate.load_engine", Engine)
    return asked


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_list_names_everything():
    listed = call("eval", "--list")
    assert listed.exit_code == 0
    for name in ("vsi", "videommmu", "mmvu", "mvbench", "tempcompass", "videomme", "world", "marc-frames", "random"):
        assert name in listed.output


def test_check_names_what_is_missing_or_broken(data):
    checked = call("eval", "--benchmark", "mmvu", "--data", data, "--check")
    assert checked.exit_code == 1
    assert "8 samples, 4 files, 2 of them unusable" in checked.output
    assert f"{data}/missing.mp4: there is no such file (needed by 2 samples, first mmvu/000003)" in checked.output
    assert f"{data}/broken.mp4: " in checked.output and f"{data}/a.mp4" not in checked.output


def test_methods_run_resume_and_report_side_by_side(data, scripted, tmp_path):
    options = [
        "--benchmark",
        "mmvu",
        "--data",
        data,
        "--method",
        "full",
        "--method",
        "tiny+memory",
        "--output",
        tmp_path,
    ]
    assert call("eval", *options, "--model", "m", "--seed", 3, "--paper-sampling", "--static-cache").exit_code == 0
    assert [entry[:2] for entry in scripted if isinstance(entry, tuple)] == [("m", "full"), ("m", "tiny+memory")]
    assert scripted[1] == GenerationOptions(1024, 0.01, 0.001, 3, static=True, repetition_penalty=1.0)
    card = json.loads((tmp_path / "mmvu" / "full" / "run.json").read_text())
    assert card["run"]["samples"] == 8 and card["run"]["method"] == "full" and card["environment"]["packages"]["torch"]
    scripted.clear()
    again = call("eval", *options, "--model", "m", "--seed", 3, "--paper-sampling", "--static-cache")
    assert again.exit_code == 0
    assert not any(isinstance(entry, GenerationOptions) for entry in scripted)
    shown = call("report", tmp_path, "--published", "--markdown", tmp_path / "all.md", "--json", tmp_path / "all.json")
    assert shown.exit_code == 0, shown.output
    text = (tmp_path / "all.md").read_text()
    assert "| m full (video-r1) | 0 |" in text and "MARC-3B (C-GRPO + VMR) (published)" in text
    assert json.loads((tmp_path / "all.json").read_text())[1]["rows"][0][1:4] == [
        "tiny+memory",
        "full",
        "+0.00 [+0.00, +0.00]",
    ]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["eval", "--benchmark", "egoschema"], "unknown benchmark 'egoschema'"),
        (["eval", "--method", "best"], "unknown method 'best'"),
        (["eval", "--benchmark", "vsi", "--data", "/nowhere"], "get it from"),
        (["eval", "--benchmark", "mmvu", "--protocol", "vlm"], "no protocol 'vlm'"),
        (["report", "/nowhere"], "holds no run"),
        (["eval", "--k", "2"], "a --method without +memory leaves nothing for --k"),
        (["eval", "--method", "tiny+memory", "--k", "few"], "--k must be a whole number >= 1 or auto"),
        (["eval", "--seed", "1"], "greedy decoding (--temperature 0) leaves nothing for --seed"),
        (["eval", "--paper-sampling", "--top-p", "0.5"], "--paper-sampling leaves nothing for --top-p"),
        (["eval", "--static-cache", "--attention", "flash_attention_2"], "--static-cache is for one compiled graph"),
        (["eval", "--static-cache", "--think-below", "0.9"], "--think-below needs the probabilities of"),
        (["eval", "--batch-size", "0"], "--batch-size"),
        (["eval", "--frames", "1"], "--max-frames must be a whole number >= 2"),
        (["eval", "--limit", "0"], "--limit must be a whole number >= 1"),
        (["eval", "--method", "auto:8", "--layout", "frames"], "--method auto:8 leaves nothing for --layout"),
        (["eval", "--layout", "frames"], "--method marc-events leaves nothing for --layout"),
        (["eval", "--method", "uniform", "--merge", "mean"], "--method uniform leaves nothing for --merge"),
        (["eval", "--budget", "tokens:9", "--visual-tokens", "8"], "--method tokens:9 leaves nothing for --visual"),
        (["eval", "--budget", "events:0"], "unknown method 'events:0'; choose one of"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(arguments, named):
    said = call(*arguments)
    assert said.exit_code == 2 and named in said.output and "Traceback" not in said.output


def test_runs_are_kept_by_model_and_compared_with_the_first(data, scripted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for model in ("some/model-a", "some/model-b"):
        options = ["--benchmark", "mmvu", "--data", data, "--model", model, "--method", "uniform", "--method", "full"]
        assert call("eval", *options, "--embedder", "tiny", "--method", "full+memory").exit_code == 0
    assert [path.name for path in sorted((tmp_path / "runs" / "eval").iterdir())] == ["model-a", "model-b"]
    assert scripted[0][2].retrieval.embedder == "tiny"
    assert call("report", "runs/eval", "--json", "all.json").exit_code == 0
    rows = json.loads((tmp_path / "all.json").read_text())[1]["rows"]
    assert {row[2] for row in rows} == {"some/model-a uniform"}
    assert [row[1] for row in rows[:2]] == ["some/model-a full", "some/model-a full+memory"]


def test_budgets_are_methods_and_options_of_the_compression_reach_the_engine(data, scripted, tmp_path):
    options = ["eval", "--benchmark", "mmvu", "--data", data, "--output", tmp_path]
    done = call(*options, "--budget", "events:4", "--method", "tokens:8+memory", "--tower-layer", "4:16,8:4")
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "mmvu").iterdir()} == {"events:4", "tokens:8+memory"}
    engines = [entry for entry in scripted if isinstance(entry, tuple)]
    assert [name for _, name, _ in engines] == ["tokens:8+memory", "events:4"]
    assert engines[0][2].compression == {"tower_layer": ((4, 16), (8, 4))}


def test_failed_samples_are_told_and_end_in_exit_code_1_once_all_is_done(data, scripted, tmp_path, monkeypatch):
    options = ["eval", "--benchmark", "mmvu", "--data", data, "--output", tmp_path, "--method", "full"]
    load = importlib.import_module("marc.evaluation.evaluate").load_engine

    class Failing(load):
        def answer(self, samples, generation):
            if any("missing" in sample.path for sample in samples):
                raise VideoError("missing.mp4: there is\nno such file")
            return super().answer(samples, generation)

    monkeypatch.setattr("marc.evaluation.evaluate.load_engine", Failing)
    for _ in range(2):  # the second time all is known
        done = call(*options, "--method", "tiny")
        assert done.exit_code == 1
        said = done.stderr.splitlines()[-1]
        assert said.startswith("marc eval: 4 samples failed; first reason: missing.mp4: there is\\nno such file; see ")
        assert f"{tmp_path}/mmvu/full/report.md, {tmp_path}/mmvu/tiny/report.md" in said
    assert {(tmp_path / "mmvu" / name / "report.md").is_file() for name in ("full", "tiny")} == {True}
    monkeypatch.setattr("marc.evaluation.evaluate.load_engine", load)
    assert call(*options, "--method", "tiny").exit_code == 1, "what failed earlier is no answer"
    again = call(*options, "--method", "tiny", "--retry-failed")
    assert again.exit_code == 0 and "samples failed" not in again.output


@pytest.mark.parametrize(("code", "is_reported"), [(0, True), (1, True), (2, False)])
def test_the_script_reports_what_was_answered_and_ends_as_the_evaluation_did(tmp_path, code, is_reported):
    script = Path(__file__).parents[2] / "inference_script" / "eval_bench.sh"
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\n[ "$1" = -m ] && echo reported && exit 0\nmkdir -p "$OUTPUT"\nexit "$CODE"\n')
    python.chmod(0o755)
    for output, shown in ((tmp_path / "runs", is_reported), ("/proc/no/runs", False)):
        own = {"PYTHON": str(python), "OUTPUT": str(output), "CODE": str(code), "BENCHMARKS": "vsi mmvu"}
        done = subprocess.run(["bash", script], env={**os.environ, **own}, capture_output=True, text=True, check=False)
        assert done.returncode == code and ("reported" in done.stdout) == shown, done
        assert "--benchmark vsi --benchmark mmvu" in done.stdout


def test_a_report_is_markdown_where_there_is_no_terminal(data, scripted, tmp_path):
    options = ["eval", "--benchmark", "mmvu", "--data", data, "--output", tmp_path, "--method", "full"]
    assert call(*options).exit_code == 0
    shown = call("report", tmp_path, "--published", "--markdown", tmp_path / "all.md")
    assert shown.stdout.strip() == (tmp_path / "all.md").read_text().strip()


def test_ones_own_export_of_the_micro_world_has_a_folder_of_its_own(scripted, tmp_path):
    file = tmp_path / "h" / "eval_world.json"
    file.parent.mkdir()
    file.write_text(json.dumps([{**PLAIN, "path": "a.mp4", "data_source": "marc-world-hard"}]))
    assert call("eval", "--benchmark", file, "--method", "frames2", "--output", tmp_path / "out").exit_code == 0
    report = (tmp_path / "out" / "h-world" / "frames2" / "report.md").read_text()
    assert report.startswith("# Micro-world (h), official protocol, frames2")


def test_another_setting_does_not_resume_a_run(data, scripted, tmp_path):
    options = ["eval", "--benchmark", "mmvu", "--data", data, "--output", tmp_path]
    assert call(*options).exit_code == 0
    said = call(*options, "--max-new-tokens", 5)
    assert said.exit_code == 2 and "generation was" in said.output


def test_the_threshold_of_bare_answers_tells_runs_apart_and_needs_prompts_that_ask_to_think(data, scripted, tmp_path):
    options = ["eval", "--benchmark", "mmvu", "--data", data, "--output", tmp_path]
    assert call(*options).exit_code == 0
    card = tmp_path / "mmvu" / "marc-events" / "run.json"
    assert "think_below" not in json.loads(card.read_text())["run"]["generation"], "earlier runs go on"
    said = call(*options, "--think-below", 0.9)
    assert said.exit_code == 2 and "'think_below': 0.9" in said.output
    scripted.clear()
    said = call(*options, "--think-below", 0.9, "--style", "short")
    assert said.exit_code == 2 and "MMVU, video-r1 protocol: think_below: this prompt does not ask" in said.output
    assert not scripted, "before a model is loaded"
    assert call(*options[:-1], tmp_path / "other", "--think-below", 0.9).exit_code == 0
    assert scripted[1].think_below == 0.9


def test_the_real_model_on_real_files(data, tmp_path):
    """Every method answers the good clips, and the bad ones fail by name."""
    from marc.evaluation.methods import METHODS

    methods = [part for name in METHODS for part in ("--method", name)]
    done = call("eval", "--benchmark", "mmvu", "--data", data, "--output", tmp_path, "--max-new-tokens", 2, *methods)
    assert done.exit_code == 1, done.output
    tokens = {}
    for name in METHODS:
        report = json.loads((tmp_path / "mmvu" / name / "report.json").read_text())
        assert report["headline"]["n"] == 4 and sum(count for _, count in report["failures"]) == 4
        assert any("missing.mp4" in reason for reason, _ in report["failures"])
        tokens[name] = report["costs"]["visual_tokens_after"]
    assert tokens["full"] > 4
    assert {name: tokens[name] for name in METHODS if name not in ("full", "tiny")} == dict.fromkeys(
        ["frames2", "uniform", "random", "marc-frames", "marc-events"], 4.0
    )
    assert tokens["tiny"] < tokens["full"]


def test_bare_answers_are_asked_for_with_their_options_and_told_in_rows_and_reports(data, tmp_path):
    rows = {}
    for threshold in ("none", "0", "1.01"):
        options = ["--benchmark", "mmvu", "--data", data, "--output", tmp_path / threshold, "--max-new-tokens", 2]
        assert call("eval", *options, "--think-below", threshold).exit_code == 1, "of the clips that cannot be read"
        folder = tmp_path / threshold / "mmvu" / "marc-events"
        lines = map(json.loads, (folder / "rows.rank0.jsonl").read_text().splitlines())
        rows[threshold] = [row for row in lines if row["status"] == "ok"]
        assert ("thought about (share)" in (folder / "report.md").read_text()) == (threshold != "none")
    assert [row["output"] for row in rows["1.01"]] == [row["output"] for row in rows["none"]]
    assert {row["generated_tokens"] for row in rows["1.01"]} == {3}
    assert {row["has_thought"] for row in rows["0"]} == {False}
    bare = render_question(PLAIN["problem"], problem_type="multiple choice", options=PLAIN["options"], style="short")
    tokenizer = load_processor("tiny")[1].tokenizer
    for thinking, without in zip(rows["none"], rows["0"], strict=True):
        asked = render_question(PLAIN["problem"], problem_type="multiple choice", options=PLAIN["options"])
        lengths = [len(tokenizer(text)["input_ids"]) for text in (asked, bare + BEGINNING)]
        assert thinking["input_tokens"] - without["input_tokens"] == lengths[0] - lengths[1]


@pytest.mark.parametrize("family", [family.name for family in families()])
def test_checkpoints_of_every_family(family, data, tmp_path):
    """With every token, at budgets of visual and of prompt tokens, and through the memory."""
    for part in build_tiny(family=family, corpus=[" seconds"] * 2):
        part.save_pretrained(tmp_path / "model")
    methods = ("full", "marc-events", "tiny", "prompt:40", "frames2+memory")
    options = ["--data", data, "--output", tmp_path / "out", "--model", tmp_path / "model", "--max-new-tokens", 2]
    options += ["--embedder", "tiny", "--batch-size", 2, *(part for name in methods for part in ("--method", name))]
    done = call("eval", "--benchmark", "mmvu", *options)
    assert done.exit_code == 1, done.output
    costs = {}
    for name in methods:
        report = json.loads((tmp_path / "out" / "mmvu" / name / "report.json").read_text())
        assert report["headline"]["n"] == 4
        costs[name] = report["costs"]
    assert costs["full"]["visual_tokens_after"] == costs["full"]["visual_tokens_before"] > 4
    assert costs["marc-events"]["visual_tokens_after"] <= costs["frames2+memory"]["visual_tokens_after"] == 4
    assert costs["prompt:40"]["prompt_tokens_after"] <= 40
    card = json.loads((tmp_path / "out" / "mmvu" / "full" / "run.json").read_text())["run"]
    assert card["family"] == next(known.title for known in families() if known.name == family)
    assert card["reading"] == ({"text_after_video": "published"} if family == "qwen2_5_vl" else {})
