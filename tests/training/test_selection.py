"""A learned selection: its steps by hand, what it comes to, and that it is part of a run."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from tiny_training import make_trainer

from marc.compression.config import CompressionConfig
from marc.training import CGRPOConfig
from marc.training.budgets import BudgetMix
from marc.training.selection import BudgetPolicy, video_tokens

BASE = CompressionConfig()


def test_it_begins_with_the_shares_and_a_step_is_that_of_the_formula():
    policy = BudgetPolicy(BudgetMix({"events": 3.0, "full": 1.0, "frames:1": 0.0}), rate=2.0, cost=0.4)
    assert policy.mix.shares == pytest.approx({"events": 0.75, "full": 0.25})
    assert policy.learn("full", reward=1.0, tokens=1.0) == pytest.approx(0.6)
    assert policy.mix.shares == pytest.approx({"events": 0.75, "full": 0.25}), "the first one is the baseline"
    assert policy.learn("events", reward=0.9, tokens=0.25) == pytest.approx(0.8)
    events, full = math.log(3.0) + 2 * 0.2 * 0.25, 2 * 0.2 * -0.25
    assert policy.mix.shares["events"] == pytest.approx(1 / (1 + math.exp(full - events)))
    assert policy.state()["baseline"] == pytest.approx(0.6 + 0.1 * 0.2)


@pytest.mark.parametrize(("cost", "best"), [(0.0, "full"), (0.5, "events")])
def test_it_comes_to_what_pays_most(cost, best):
    """Every token brings 0.1 more; whether that is worth them is the cost's to say."""
    policy = BudgetPolicy(BudgetMix({"events": 1, "full": 1}), rate=1.0, cost=cost)
    brings = {"events": (0.8, 1 / 32), "full": (0.9, 1.0)}
    for step in range(600):
        name, _ = policy.mix.draw(0, step, BASE)
        policy.learn(name, *brings[name])
    assert policy.mix.shares[best] > 0.9


def test_it_is_kept_whole():
    one, other = (BudgetPolicy(BudgetMix({"events": 1, "full": 2}), rate=0.7, cost=0.1) for _ in range(2))
    for reward in (0.3, 0.9, 0.1):
        one.learn("full", reward, 1.0)
    other.restore(json.loads(json.dumps(one.state())))
    assert other.state() == one.state() and other.mix == one.mix
    with pytest.raises(ValueError, match="selection is of events, full, not of events, frames:1"):
        BudgetPolicy(BudgetMix({"events": 1, "frames:1": 2}), 0.7, 0.1).restore(one.state())


def test_only_tokens_of_videos_count():
    def seen(kind: str, tokens: int, before: int) -> SimpleNamespace:
        return SimpleNamespace(kind=kind, tokens=tokens, patches=SimpleNamespace(tokens=before))

    rows = [(seen("video", 4, 128),), (seen("image", 9, 9), seen("video", 2, 32)), ()]
    assert video_tokens(rows) == (6, 160) and video_tokens([]) == (0, 0)


LEARNS = {"budgets": {"events": 1, "frames:1": 1, "full": 1}, "selection_rate": 5.0, "selection_cost": 0.5}
RUN = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "bf16": False, "freeze_tower": True}


def test_a_trainer_learns_from_its_rewards(files, rows, tmp_path):
    """What it draws and learns is recomputed from what it logs, step by step."""
    trainer = make_trainer(files, rows, tmp_path, **{**RUN, **LEARNS, "save_strategy": "no", "dynamic_sampling": 1})
    policy = BudgetPolicy(BudgetMix(LEARNS["budgets"]), 5.0, 0.5)
    trainer.train()
    steps = [row for row in trainer.state.log_history if "loss" in row]
    assert len(steps) == 6 and len({row["selection/tokens"] for row in steps}) > 1
    for step, row in enumerate(steps):
        name, _ = policy.mix.draw(trainer.args.seed, step, BASE)
        assert row[f"budget/{name}"] == 1
        value = row["selection/reward"]
        assert 0 < row["selection/tokens"] <= 1 and (name != "full" or row["selection/tokens"] == 1)
        policy.learn(name, value + 0.5 * row["selection/tokens"], row["selection/tokens"])
        for each, share in policy.mix.shares.items():
            assert row[f"selection/probability/{each}"] == pytest.approx(share)


def test_rewards_are_the_mean_of_the_first_draw(files, rows, tmp_path):
    trainer = make_trainer(files, rows, tmp_path, **{**RUN, **LEARNS, "alpha": 0.0, "reward_weights": [2.0, 0.5]})
    trainer.reward_funcs[:2] = [
        lambda problem_id, **columns: [1.0, 0.0, None, 0.5],
        lambda problem_id, **columns: [1.0, 1.0, None, 0.0],
    ]
    trainer.model.train()
    trainer._generate_and_score_completions([trainer.train_dataset[i] for i in (0, 0, 1, 1)])
    expected = ((2 + 0.5) + 0.5 + 1.0) / 3
    (value,), (tokens,) = (trainer._metrics["train"][f"selection/{name}"] for name in ("reward", "tokens"))
    assert value == pytest.approx(expected - 0.5 * tokens)


def test_nothing_is_learned_without_a_video_or_in_evaluation(files, mixed_rows, tmp_path):
    trainer = make_trainer(files, mixed_rows, tmp_path, **{**RUN, **LEARNS})
    before = trainer._selection.state()
    trainer.model.train()
    trainer._generate_and_score_completions([trainer.train_dataset[i] for i in (1, 1, 2, 2)])
    trainer.model.eval()
    trainer._generate_and_score_completions([trainer.train_dataset[i] for i in (0, 0, 3, 3)])
    assert trainer._selection.state() == before


def test_a_resumed_run_selects_as_the_uninterrupted_one(files, rows, tmp_path):
    trainers = [make_trainer(files, rows, tmp_path / name, **RUN, **LEARNS) for name in ("whole", "resumed")]
    trainers[0].train()
    trainers[1].train(resume_from_checkpoint=str(tmp_path / "whole" / "run" / "checkpoint-3"))
    logs = [
        [{key: value for key, value in row.items() if key.startswith(("selection", "budget", "loss"))} for row in each]
        for each in (trainer.state.log_history[:6] for trainer in trainers)
    ]
    assert logs[0] == logs[1]
    for ours, theirs in zip(*(trainer.model.parameters() for trainer in trainers), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection_rate": -1.0}, "selection_rate and selection_cost must be at least 0"),
        ({"selection_cost": 0.1}, "set selection_rate, too"),
        ({"selection_rate": 1.0}, "name at least two budgets"),
        ({"selection_rate": 1.0, "budgets": {"events": 1, "full": 0}}, "name at least two budgets"),
        ({**LEARNS, "reward_coef": 0.0, "distill_coef": 1.0}, "selection_rate looks at rewards"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        CGRPOConfig(str(tmp_path), use_cpu=True, bf16=False, **options)
