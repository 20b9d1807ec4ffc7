"""The experiment at the size of seconds: rows, arms, a kill, a resume, a report."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from experiments.ablation.training import Allowance
from experiments.reinforcement import run
from experiments.reinforcement.report import Findings, write_report
from experiments.reinforcement.rows import NO_TRACE, draw_rows, traced, with_few_traces
from experiments.reinforcement.run import Laboratory, run_reinforcement
from experiments.reinforcement.settings import (
    ARMS,
    BUDGET,
    OURS,
    PAPER,
    SINGLE_CHANGES,
    START,
    VARIANTS,
    Settings,
)
from experiments.reinforcement.training import RejectionSampling, Run, make_trainer
from marc.grading import extract_answer
from marc.model.loading import EMBEDDED_FOLDER
from marc.training import CGRPOConfig

pytestmark = pytest.mark.skipif(not EMBEDDED_FOLDER.is_dir(), reason="the trained model is not there")

SETTINGS = Settings(
    seeds=(7,),
    start_seconds=0.05,
    seconds=0.05,
    traced=0.3,
    train_videos=3,
    train_questions=4,
    test_videos=2,
    test_questions=4,
    videos=1,
    questions=2,
    prompts=2,
    generations=2,
    curve_points=1,
    curve_videos=1,
    variants=True,
)
COMPARED = (*ARMS, *VARIANTS)


def arm(name: str):
    return next(each for each in COMPARED if each.name == name)


class Killed(BaseException):
    """What stands for kill -9."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An experiment that was killed before its third training and then finished: folder, results, what was trained."""
    output, names = tmp_path_factory.mktemp("reinforcement"), []
    original = run.train

    def train(student, rows, job, measure):
        if len(names) == 2 and not (output / "killed").exists():
            (output / "killed").touch()
            raise Killed
        names.append(job.arm.name)
        return original(student, rows, job, measure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "train", train)
        with pytest.raises(Killed):
            run_reinforcement(SETTINGS, output, log=lambda line: None)
        results = run_reinforcement(SETTINGS, output, log=lambda line: None)
    return output, results, names


def test_every_arm_is_trained_once_from_the_start(finished):
    _, results, names = finished
    assert names == ["start", *(each.name for each in COMPARED)]
    assert [each.name for each in replace(SETTINGS, variants=False).arms] == names[: 1 + len(ARMS)]
    assert [row["arm"] for row in results["arms"]] == names
    for row in results["arms"]:
        assert set(row["right"]) == {BUDGET, "full"} and len(row["right"][BUDGET]) == len(results["videos"])
        assert row["accuracy"][BUDGET] == row["right"][BUDGET].count("1") / len(results["videos"])
        assert 0 <= row["reasons"] <= 1 <= row["tokens"]
        if row["arm"] != "start":
            assert row["log"]["steps"] >= 1 and row["log"]["seconds"] >= SETTINGS.seconds
            assert (row["log"]["completions"] > 0) == (arm(row["arm"]).method != "sft")


def test_a_folder_holds_one_experiment_to_which_seeds_may_be_added(finished):
    output, _, _ = finished
    with pytest.raises(ValueError, match="other seconds; choose another"):
        run_reinforcement(replace(SETTINGS, seconds=1.0), output)
    run.keep(replace(SETTINGS, seeds=(7, 8)), output)


def test_the_report_has_every_arm_and_difference(finished):
    output, results, _ = finished
    write_report(results, output)
    text = (output / "tables.md").read_text()
    assert all(f"| {name} |" in text for name in ("start", *(each.name for each in COMPARED)))
    differences = text.split("### Differences")[1].split("### What")[0].splitlines()
    assert len([line for line in differences if line.startswith("| ")]) == 2 + 2 + len(VARIANTS)
    assert all(line.count("[") == 4 - ("the paper's |" in line) for line in differences if line.startswith("| C-GRPO"))
    learned = next(line for line in reversed(text.splitlines()) if line.startswith("| learned selection"))
    shares = [float(cell) for cell in learned.split(" | ")[4:7]]
    assert sum(shares) == pytest.approx(1, abs=0.02)


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory) -> Laboratory:
    return Laboratory(SETTINGS, tmp_path_factory.mktemp("laboratory"))


def test_few_rows_keep_their_trace_and_all_their_label(laboratory):
    drawn = draw_rows("easy", "train", 3, videos=3, questions=6)
    few = with_few_traces(drawn, 0.25)
    assert len(traced(few)) == round(0.25 * len(drawn)) and few == with_few_traces(drawn, 0.25)
    assert [row.solution for row in few] == [row.solution for row in drawn]
    assert {row.process for row in few} - {row.process for row in drawn} == {NO_TRACE}
    assert all(row.a_full is not None for row in laboratory.rows)


def test_rejection_sampling_learns_from_what_is_right_alone(laboratory):
    noisy = {name: weight + 0.1 * torch.randn_like(weight) for name, weight in laboratory.start(7).items()}
    student = laboratory.student(noisy)
    job = Run(arm("rejection sampling"), 1.0, 0, laboratory.output / "trainer", SETTINGS)
    trainer = make_trainer(student, laboratory.rows, job, Allowance(1.0))
    assert type(trainer) is RejectionSampling
    trainer.model.train()
    rows = [trainer.train_dataset[index] for index in range(4) for _ in range(2)]
    batch = trainer._generate_and_score_completions(rows)
    said = student.processor.batch_decode(batch["completion_ids"], skip_special_tokens=True)
    right = [extract_answer(text) == extract_answer(row["solution"]) for text, row in zip(said, rows, strict=True)]
    assert batch["advantages"].tolist() == [float(value) for value in right]


def made_up(arm_name: str, seed: int, right: str) -> dict:
    curve = [(second, {BUDGET: 0.5 + second / 10 + seed / 100}) for second in range(4)]
    log = {"steps": 4, "completions": 8, "stats": {"grad_norm": 0.5}, "curve": curve}
    return {
        "arm": arm_name,
        "seed": seed,
        "reasons": 1.0,
        "tokens": 4.0,
        "right": {BUDGET: right, "full": right},
        "log": log,
    }


def test_findings_are_paired_by_video_and_seed():
    results = {
        "videos": ["a", "a", "a", "b"],
        "arms": [made_up(name, seed, right) for name, pair in (("x", ("1100", "1000")), ("y", ("1101", "1111")))
                 for seed, right in enumerate(pair)],
    }  # fmt: skip
    findings = Findings(results)
    right = findings.right("x", BUDGET)
    assert right.shape == (2, 2, 3) and np.isnan(right[:, 1, 1:]).all()
    assert findings.mean("x", BUDGET).mean == pytest.approx(3 / 8)
    assert findings.difference("x", "y", BUDGET).mean == pytest.approx(4 / 8)
    assert findings.on_the_way("x") == pytest.approx([0.605, 0.705])
    assert findings.amount("x", "grad_norm") == 0.5 and np.isnan(findings.amount("x", "nothing"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": (1, 1)}, "seeds must be different"),
        ({"traced": 0.0}, "traced must lie in"),
        ({"seconds": 0}, "seconds"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **options)


@pytest.mark.parametrize(("name", "options"), [("full", PAPER), ("ours", OURS)])
def test_policies_have_the_objective_of_their_recipe(name, options):
    """Whatever of it is not a default, be it the trainer's or the experiment's own."""
    recipe = yaml.safe_load((Path(__file__).resolve().parents[3] / "configs" / f"grpo_3b_{name}.yaml").read_text())
    assert {key: recipe[key] for key in options} == options
    defaults = CGRPOConfig("unused", use_cpu=True, bf16=False)
    objective = ("alpha", "tau", "epsilon", "num_iterations", "num_generations", "temperature", "top_p", *options)
    rest = [key for key in objective if key not in options]
    assert {key: recipe[key] for key in rest} == {key: getattr(defaults, key) for key in rest}


def test_arms_have_names_of_their_own_and_settings_are_json():
    assert len({each.file_name for each in (START, *COMPARED)}) == len(COMPARED) + 1
    json.dumps([dict(each.options) for each in COMPARED])


def test_a_variant_is_the_papers_but_for_one_thing():
    for each, change in zip(VARIANTS, SINGLE_CHANGES.values(), strict=True):
        other = {key for key in {*PAPER, *each.options} if each.options.get(key) != PAPER.get(key)}
        assert other == set(change)
        CGRPOConfig("unused", use_cpu=True, bf16=False, **each.options)
