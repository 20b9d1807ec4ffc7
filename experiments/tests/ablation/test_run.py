"""The whole experiment at the size of seconds: killed, resumed, reported."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.ablation import context, run
from experiments.ablation.report import Findings, Outcome, write_report
from experiments.ablation.run import run_ablation
from experiments.ablation.settings import ARMS, START, AblationSettings, MethodOptions, to_json
from marc.io import write_json
from marc.model.loading import EMBEDDED_FOLDER

pytestmark = pytest.mark.skipif(not EMBEDDED_FOLDER.is_dir(), reason="the trained model is not there")

SETTINGS = AblationSettings(
    seeds=(7,),
    seconds=0.05,
    train_videos=3,
    train_questions=4,
    test_videos=2,
    test_questions=6,
    segmenter="uniform",
    retrieved=(1,),
    options=MethodOptions(videos=2, questions=2, generations=2, curve_points=1, curve_videos=1),
)


class Killed(BaseException):
    """What stands for kill -9."""


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory) -> tuple[Path, dict, int]:
    """An experiment that was killed in its sixth stage and then finished: folder, results, stages trained in all."""
    output = tmp_path_factory.mktemp("ablation")
    trained = []
    original = context.train_stage

    def train_stage(*args):
        if len(trained) == 5 and not (output / "killed").exists():
            (output / "killed").touch()
            raise Killed
        trained.append(args)
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context, "train_stage", train_stage)
        with pytest.raises(Killed):
            run_ablation(SETTINGS, output, log=lambda line: None)
        run._OPEN.clear()
        assert 0 < len(list((output / "arms").glob("*.json"))) < len(ARMS)
        results = run_ablation(SETTINGS, output, log=lambda line: None)
    return output, results, len(trained)


def test_no_stage_is_trained_twice(killed_and_resumed):
    """Arms of one seed and layout share their first stage, also over the kill."""
    _, results, trained = killed_and_resumed
    stages = {(arm.group, tuple(arm.stages[:n])) for arm in ARMS for n in range(1, len(arm.stages) + 1)}
    assert trained == len(stages)
    assert len(results["arms"]) == 1 + len(ARMS)


def test_a_finished_experiment_is_only_read(killed_and_resumed, monkeypatch):
    output, results, _ = killed_and_resumed

    def refuse(*args, **kwargs):
        raise AssertionError("something was trained again")

    monkeypatch.setattr(context, "train_stage", refuse)
    assert run_ablation(SETTINGS, output, log=lambda line: None) == results


def test_another_experiment_is_refused_by_name(killed_and_resumed):
    with pytest.raises(ValueError, match="other seconds"):
        run_ablation(replace(SETTINGS, seconds=1.0), killed_and_resumed[0])


def test_an_experiment_of_other_trainers_is_refused(tmp_path):
    """Folders of the time before revisions hold arms that a private trainer made."""
    write_json(tmp_path / "settings.json", {**to_json(SETTINGS), "seeds": None, "revision": None})
    with pytest.raises(ValueError, match="other revision;"):
        run_ablation(SETTINGS, tmp_path)


def test_the_measurement_agrees_with_the_files(killed_and_resumed):
    assert killed_and_resumed[1]["agreement with files"] >= 0.75


def test_the_report_says_what_was_measured(killed_and_resumed):
    output, results, _ = killed_and_resumed
    write_report(results, output)
    findings = Findings(results)
    row = next(row for row in results["arms"] if row["arm"] == START.key)
    bits = row["right"]["full"]
    expected = bits.count("1") / len(bits)
    assert len(bits) == 12 and findings.mean(Outcome(START.key, "full")).mean == pytest.approx(expected)
    text = (output / "tables.md").read_text(encoding="utf-8")
    assert f"| teacher as it is | {100 * expected:.1f} [" in text
    for name in ("accuracies.png", "curves.png"):
        assert (output / name).stat().st_size > 10_000
    for arm in ARMS:
        assert arm.name in text


@pytest.mark.parametrize("command", ["experiments.ablation", "marc.cli world ablation"])
def test_both_commands_take_its_options(command):
    words = [sys.executable, "-m", *command.split(), "--help"]
    said = subprocess.run(words, cwd=Path(__file__).parents[3], check=True, capture_output=True, text=True).stdout
    for name in ("model", "seconds", "seeds", "first-seed", "test-seed", "videos", "workers", "output"):
        assert f"--{name} " in said
