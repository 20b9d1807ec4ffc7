"""Contestants taught in their own layouts: what a training sees, what is kept, and the table against numbers."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from experiments.ablation.training import weights_of
from experiments.rivals import training
from experiments.rivals.report import report
from experiments.rivals.run import Rivals
from experiments.rivals.settings import COLUMNS, RivalSettings, file_name
from experiments.rivals.training import Teaching, budgets, teach, training_rows
from marc.evaluation.arena.rounds import Outcome, Round
from marc.inference.hf import HFBackend
from marc.model.loading import load_model
from marc.world.frames import video_of
from marc.world.options import WorldOptions

SETTINGS = RivalSettings(
    contestants=("events", "visionzip"),
    parts=("1/10", "1/4"),
    seeds=(0,),
    seconds=0.2,
    train_videos=2,
    train_questions=2,
    questions_together=2,
    videos_together=2,
    test=WorldOptions(seed=5, videos=1, questions=2),
)


@pytest.fixture
def student():
    return HFBackend(*load_model("tiny", device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def rows():
    return training_rows(SETTINGS)


def test_rows_have_the_true_cuts(rows):
    assert len(rows) == 4 and len({row.problem_id for row in rows}) == 4
    for row in rows:
        video = video_of(row.path)
        assert "-train-" in row.path
        assert len(row.cuts) == len(video.events) - 1


@pytest.mark.parametrize("contestant", ["events", "events blind", "frames", "holitom"])
def test_budgets_are_parts_of_an_average_video(student, rows, contestant, tmp_path):
    teaching = Teaching(contestant, ("1/10", "1/4"), 0, SETTINGS, tmp_path)
    found = budgets(student, teaching, rows)
    grids = [sum(event.grids for event in video_of(path).events) for path in {row.path for row in rows}]
    whole = 4 * sum(grids) / len(grids) + 2
    assert [each.visual_tokens for each in found.values()] == [int(whole / 10) - 2, int(whole / 4) - 2]
    assert {each.layout for each in found.values()} == {contestant.removesuffix(" blind")}


@pytest.mark.parametrize("contestant", ["events", "visionzip"])
def test_a_training_sees_videos_in_the_contestants_layout(student, rows, contestant, tmp_path, monkeypatch):
    seen = []
    encode = training.encode_once
    monkeypatch.setattr(training, "encode_once", lambda model, some: seen.extend(some) or encode(model, some))
    before = weights_of(student.model)
    steps, seconds = teach(student, Teaching(contestant, ("1/10", "1/4"), 0, SETTINGS, tmp_path), rows, {})
    assert steps >= 1 and seconds >= 0.2
    assert {each.plan.rule for each in seen} == {None if contestant == "events" else contestant}
    cut = {each.patches.events is not None for each in seen}
    assert cut == {contestant == "events"}
    after = weights_of(student.model)
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("contestant", ["events", "visionzip"])
def test_a_further_training_draws_and_encodes_nothing(student, rows, contestant, tmp_path, monkeypatch):
    seen, teaching = {}, Teaching(contestant, ("1/4",), 0, SETTINGS, tmp_path)
    teach(HFBackend(deepcopy(student.model), deepcopy(student.processor)), teaching, rows, seen)
    assert len(seen) == SETTINGS.train_videos
    monkeypatch.setattr(student.model.model.visual, "forward", None)
    monkeypatch.setattr(training.WorldFrames, "read", None)
    steps, _ = teach(student, replace(teaching, seed=1), rows, seen)
    assert steps >= 1


def test_what_is_finished_is_kept(tmp_path):
    said = []
    first = Rivals(SETTINGS, tmp_path, said.append).rounds()
    assert set(first) == {(c, n, p) for c in COLUMNS for n in SETTINGS.contestants for p in SETTINGS.parts}
    trained = [line for line in said if "steps" in line]
    assert len(trained) == 2 * (2 + 1), "own budgets and all of them, for each contestant"
    (tmp_path / "weights" / f"{file_name('visionzip', ('1/4',), 0)}.pt").unlink()
    said.clear()
    Rivals(SETTINGS, tmp_path, said.append)._trained("visionzip", ("1/4",), 0, {})
    assert len(said) == 1 and said[0].startswith("visionzip_1in4_seed0: ")
    with pytest.raises(ValueError, match=r"settings.json is of another experiment: choose another folder"):
        Rivals(replace(SETTINGS, seconds=1.0), tmp_path, said.append)


def test_the_table_against_counted_numbers():
    def played(contestant, right):
        return Round(5, 0, 2, ("a", "b"), {(contestant, part): Outcome(9, right) for part in SETTINGS.parts})

    rounds = {
        (column, name, part): [[played(name, (True, name == "events"))], [played(name, (True, True))]]
        for column in COLUMNS
        for name in SETTINGS.contestants
        for part in SETTINGS.parts
    }
    lines = report(rounds, SETTINGS).splitlines()
    assert lines[0] == "| at 1/10, % | training-free | own budget | mixed budgets |"
    assert lines[2].startswith("| events | 100.0 [100.0, 100.0] |")
    assert lines[3].startswith("| visionzip | 75.0 [75.0, 75.0]; -25.0 [-25.0, -25.0] |")
