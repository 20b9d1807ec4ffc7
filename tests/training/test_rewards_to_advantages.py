"""From accuracies to advantages, through the trainer: against the equations in 64 bits, for any group."""

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import OPTIONS, varied

from marc.model.tiny import build_tiny
from marc.rewards import accuracy_reward
from marc.training import CGRPOConfig, CGRPOTrainer

G, GROUPS = 4, 3
N = G * GROUPS
ALPHA, TAU, ETA_MAX = 0.5, 0.6, 1.5

accuracies = st.sampled_from([0.0, 0.05, 0.15, 0.3, 0.5, 0.75, 1.0])
teachers = st.one_of(st.none(), st.sampled_from([0.0, 0.125, 0.4, 0.5, 0.875, 1.0]))


@pytest.fixture(scope="module")
def trainer(tmp_path_factory) -> CGRPOTrainer:
    """A trainer whose completions are given, so that only the rewards count."""
    model, processor = build_tiny()
    row = {"prompt": [{"role": "user", "content": "?"}], "a_full": 0.5, "solution": "x", "problem_type": "OCR"}
    options = {**OPTIONS, "per_device_train_batch_size": N, "num_generations": G, "alpha": ALPHA, "tau": TAU}
    config = CGRPOConfig(str(tmp_path_factory.mktemp("run")), **options)
    data = Dataset.from_list([row] * GROUPS)
    trainer = CGRPOTrainer(model, [accuracy_reward, varied], config, data, processing_class=processor)
    trainer.model.train()
    trainer._generate = lambda prompts: (
        [[1, 2]] * N,
        [[3, 4]] * N,
        None,
        [[{"role": "assistant", "content": "x"}]] * N,
        None,
        {},
        None,
        [],
    )
    return trainer


def retention_rewards(own: list[float], a_full: float | None, eta_max: float | None, saturate: bool) -> float:
    """``r_c`` of a group."""
    if a_full is None:
        return 0.0
    mean = sum(own) / G
    eta = mean / a_full if a_full > 0 else (float("inf") if saturate and mean > 0 else 0.0)
    return ALPHA * max(0.0, (eta if eta_max is None else min(eta, eta_max)) - TAU)


@settings(max_examples=60)
@given(
    st.lists(accuracies, min_size=N, max_size=N),
    st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=N, max_size=N),
    st.lists(teachers, min_size=GROUPS, max_size=GROUPS),
    st.sampled_from(["group", "batch", "none"]),
    st.sampled_from(["reward", "advantage"]),
    st.sampled_from([(None, "none"), (ETA_MAX, "none"), (ETA_MAX, "saturate")]),
    st.sampled_from(["correct", "accuracy"]),
)
def test_advantages_follow_the_equations(trainer, rewards, extras, a_full, scale, form, limits, credit):
    credit = "correct" if form == "advantage" else credit
    trainer.scale_rewards, trainer.args.retention_form = scale, form
    trainer.args.retention_credit = credit
    trainer.args.eta_max, trainer.args.zero_teacher = limits
    trainer.reward_funcs[:2] = [lambda **columns: rewards, lambda **columns: extras]
    row = trainer.train_dataset[0]
    batch = trainer._generate_and_score_completions([{**row, "a_full": a} for a in a_full for _ in range(G)])

    r_c = [
        retention_rewards(rewards[G * b : G * b + G], a, limits[0], limits[1] == "saturate")
        for b, a in enumerate(a_full)
    ]
    right = torch.tensor(rewards, dtype=torch.float64).view(GROUPS, G) > 0.1
    R = torch.tensor([a + e for a, e in zip(rewards, extras, strict=True)], dtype=torch.float64).view(GROUPS, G)
    bonus = torch.tensor(r_c, dtype=torch.float64)[:, None] * right
    if credit == "accuracy":
        bonus = bonus * torch.tensor(rewards, dtype=torch.float64).view(GROUPS, G)
    if form == "reward":
        R = R + bonus
    A = R - R.mean(1, keepdim=True)
    if scale != "none":
        A = A / ((R.std(1, keepdim=True) if scale == "group" else R.std()) + 1e-4)
    if form == "advantage":
        A = A * (1 + bonus.amax(1, keepdim=True))
    torch.testing.assert_close(batch["advantages"].double(), A.flatten(), rtol=1e-3, atol=3e-3)


@pytest.mark.parametrize("scale", ["group", "none"])
def test_brevity_is_added_to_normalised_advantages(trainer, scale, monkeypatch):
    """By hand: the first group is all right, in the second one is wrong; the third is alike in accuracy and length."""
    answers = [[3] * count for count in (4, 8, 8, 12, 4, 40, 40, 40, 7, 7, 7, 7)]
    said = [[{"role": "assistant", "content": "x"}]] * N
    monkeypatch.setattr(trainer, "_generate", lambda prompts: ([[1, 2]] * N, answers, None, said, None, {}, None, []))
    right = [1.0] * 4 + [1.0, 1.0, 1.0, 0.0] + [1.0] * 4
    zeros = [0.0] * N
    monkeypatch.setattr(trainer, "reward_funcs", [lambda **_: right, lambda **_: zeros, trainer.reward_funcs[2]])
    monkeypatch.setattr(trainer, "scale_rewards", scale)
    monkeypatch.setattr(trainer.args, "alpha", 0.0)
    batches = {}
    for coefficient in (0.0, 0.3):
        monkeypatch.setattr(trainer.args, "length_coef", coefficient)
        trainer._brevity = None
        batches[coefficient] = trainer._generate_and_score_completions([trainer.train_dataset[0]] * N)["advantages"]
    difference = batches[0.3] - batches[0.0]
    torch.testing.assert_close(difference, torch.tensor([0.1, 0, 0, -0.1, *[0.0] * 8]), rtol=1e-5, atol=1e-6)
    assert trainer._metrics["train"]["length/groups"][-1] == pytest.approx(1 / 3)
    assert trainer._metrics["train"]["length/advantage"][-1] == pytest.approx(0.2 / 12)
    trainer._row_names = [""] * N
    assert trainer._without_variance() == [False, False, True]
    trainer._brevity = None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length_coef": -0.1}, "length_coef must be at least 0"),
        ({"length_coef": 0.1, "reward_coef": 0.0, "distill_coef": 1.0}, "length_coef looks at rewards"),
        ({"length_coef": 0.1, "alpha": 0.0}, r"length_coef needs marc\.rewards\.accuracy_reward"),
    ],
)
def test_what_brevity_needs_is_said(options, message, trainer, tmp_path):
    given = {**OPTIONS, "per_device_train_batch_size": N, "num_generations": G, **options}

    def make() -> CGRPOTrainer:
        config = CGRPOConfig(str(tmp_path), **given)
        return CGRPOTrainer(trainer.model, [varied], config, trainer.train_dataset)

    with pytest.raises(ValueError, match=message):
        make()
