"""Stages: the shipped trainers, an allowance of processor time, and what is kept."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerControl

from experiments.ablation import training
from experiments.ablation.settings import BUDGETS, MIXTURE, MethodOptions
from experiments.ablation.training import (
    Allowance,
    StageOptions,
    TimeLimit,
    learning_rate,
    load_weights,
    make_trainer,
    train_stage,
    weights_of,
)
from marc.rewards import RetentionConfig
from marc.training import CGRPOTrainer, VideoSFTTrainer
from marc.world.frames import WorldFrames

STAGE = StageOptions(
    method="sft",
    budgets={"events": 1.0},
    seconds=0.05,
    seed=1,
    teacher="tiny",
    folder=Path("unused"),
    batch=MethodOptions(videos=2, questions=2, generations=4, curve_points=1),
)


@pytest.fixture
def stage(tmp_path) -> StageOptions:
    return replace(STAGE, folder=tmp_path / "trainer")


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """Processor time that passes when the test says so."""
    clock = SimpleNamespace(now=100.0, process_time=lambda: clock.now)
    monkeypatch.setattr(training, "time", clock)
    return clock


def test_the_learning_rate_rises_and_falls_to_nothing():
    assert learning_rate(0) == pytest.approx(0.1) and learning_rate(1) == learning_rate(1.3) == 0
    assert max(learning_rate(share / 100) for share in range(101)) == 0.95
    assert learning_rate(0.5) == pytest.approx(0.5)


def test_time_counts_between_start_and_stop(clock):
    allowance = Allowance(8.0)
    clock.now += 50
    allowance.start()
    clock.now += 2
    assert allowance.spent == 2 and allowance.share == 0.25
    allowance.stop()
    clock.now += 50
    assert allowance.spent == 2
    allowance.start()
    clock.now += 6
    assert allowance.share == 1


def test_measuring_costs_no_time_and_the_last_step_ends_training(clock):
    allowance, control, measured = Allowance(4.0), TrainerControl(), []

    def measure() -> dict[str, float]:
        assert not model.training
        torch.rand(1)
        clock.now += 1000
        measured.append(allowance.spent)
        return {"events": 0.5}

    limit, model = TimeLimit(allowance, 2, measure), torch.nn.Linear(1, 1)
    state = torch.random.get_rng_state()
    limit.on_train_begin(None, None, control, model=model)
    steps = 0
    while not control.should_training_stop:
        clock.now += 1.5
        limit.on_step_end(None, None, control, model=model)
        steps += 1
    assert steps == 3 and model.training
    assert measured == [0.0, 3.0, 4.5] == [seconds for seconds, _ in limit.curve]
    assert torch.equal(state, torch.random.get_rng_state()), "samples must not depend on how often is measured"


@pytest.mark.parametrize(
    ("method", "trainer_class"), [("sft", VideoSFTTrainer), ("c-grpo", CGRPOTrainer), ("distill", CGRPOTrainer)]
)
def test_a_stage_trains_all_but_the_tower_with_a_shipped_trainer(
    student, rows, stage, method, trainer_class, monkeypatch
):
    made = []
    original = training.make_trainer
    monkeypatch.setattr(training, "make_trainer", lambda *args: made.append(original(*args)) or made[-1])
    before = {name: weight.detach().clone() for name, weight in student.model.named_parameters()}
    measured = iter((0.25, 0.5))
    log = train_stage(student, rows, replace(stage, method=method), lambda: {"full": next(measured)})
    assert type(made[0]) is trainer_class
    after = dict(student.model.named_parameters())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if not name.startswith("model.visual.")}
    assert log.steps >= 1 and log.seconds >= stage.seconds
    answers = {"sft": 0, "c-grpo": 4, "distill": 2}[method]
    assert (log.questions, log.completions) == (4 * log.steps, 4 * answers * log.steps)
    assert log.curve == [(0.0, {"full": 0.25}), (log.seconds, {"full": 0.5})]
    assert log.stats["loss"] != 0 and log.stats["grad_norm"] > 0


def test_a_student_that_sees_what_its_teacher_sees_has_nothing_to_distill(teacher, student, rows, stage):
    load_weights(student.model, weights_of(teacher.model))
    stage = replace(stage, method="distill", seconds=1e-9)
    same = train_stage(student, rows, replace(stage, budgets={"full": 1.0}), dict)
    assert same.steps == 1 and abs(same.stats["distill/kl"]) < 1e-6


def test_a_student_that_sees_less_has(student, rows, stage):
    assert train_stage(student, rows, replace(stage, method="distill", seconds=1e-9), dict).stats["distill/kl"] > 1e-3


def test_videos_are_read_and_encoded_before_the_clock_starts(student, rows, stage, monkeypatch):
    trainer = make_trainer(student, rows, replace(stage, budgets=MIXTURE), Allowance(1.0))

    def refuse(*args):
        raise AssertionError("read or encoded again")

    monkeypatch.setattr(WorldFrames, "read", refuse)
    monkeypatch.setattr(student.model.model.visual, "forward", refuse)
    batch = next(iter(trainer.get_train_dataloader()))
    assert trainer.compute_loss(trainer.model, batch).isfinite()


def test_budgets_are_the_arms(student, rows, stage):
    one = make_trainer(student, rows, replace(stage, budgets={"frames:1": 1.0}), Allowance(1.0))
    assert student.model.compression == student.processor.compression == BUDGETS["frames:1"]
    assert one.args.budgets is None
    mixed = make_trainer(student, rows, replace(stage, budgets=MIXTURE), Allowance(1.0))
    assert mixed.args.budgets == MIXTURE
    drawn = {mixed.args.budget_mix.draw(0, step, student.compression) for step in range(50)}
    assert dict(drawn) == BUDGETS, "the budgets that are encoded beforehand are those that are drawn"


def test_c_grpo_is_given_the_retention_reward(student, rows, stage):
    batch = replace(stage.batch, retention=RetentionConfig(alpha=0.2, tau=0.7, eta_max=1.5))
    trainer = make_trainer(student, rows, replace(stage, method="c-grpo", batch=batch), Allowance(1.0))
    assert trainer.args.retention == batch.retention
    assert [function.__name__ for function in trainer.reward_funcs] == ["accuracy_reward", "retention"]
    assert trainer.train_dataset["a_full"] == [row.a_full for row in rows]


def test_weights_are_kept_without_the_tower(teacher, student):
    assert not any(name.startswith("model.visual.") for name in weights_of(student.model))
    load_weights(student.model, weights_of(teacher.model))
    expected = teacher.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in student.model.state_dict().items())
    with pytest.raises(AssertionError):
        load_weights(student.model, {"another.weight": torch.zeros(1)})
