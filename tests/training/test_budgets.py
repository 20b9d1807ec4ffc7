"""Budgets that are drawn for each step."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marc.compression.config import CompressionConfig, parse_budget
from marc.model.tiny import build_tiny
from marc.training import CGRPOConfig, CGRPOTrainer, to_dataset
from marc.training.budgets import BudgetMix

BASE = CompressionConfig(layout="frames", target_frames=2, visual_tokens=3, window=5)


@pytest.mark.parametrize(
    "name", ["frame", "events:0", "events-0", "events:", "full:2", "", "frames:1.5", "tokens", "tokens:0", "tokens-8"]
)
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="budget"):
        BudgetMix({name: 1.0})


def test_the_names_of_earlier_recipes_work_and_warn():
    with pytest.warns(FutureWarning, match="the budget frames-2 is now written frames:2"):
        mix = BudgetMix({"frames-2": 1.0})
    with pytest.warns(FutureWarning):
        assert mix.draw(0, 0, BASE) == ("frames-2", parse_budget("frames:2", BASE))


@pytest.mark.parametrize("shares", [{"full": -1.0}, {"full": 0.0}, {"full": float("nan")}])
def test_wrong_shares_are_refused(shares):
    with pytest.raises(ValueError, match=r"budgets?"):
        BudgetMix(shares)


@given(st.integers(0, 100), st.integers(0, 10**6))
def test_a_draw_follows_from_seed_and_step(seed, step):
    mix = BudgetMix({"events": 1, "frames:1": 2, "full": 3})
    assert mix.draw(seed, step, BASE) == BudgetMix(dict(mix.shares)).draw(seed, step, BASE)


def test_shares_are_kept():
    mix = BudgetMix({"events": 2, "frames:2": 1, "full": 1, "events:2": 0})
    counts = Counter(mix.draw(0, step, BASE)[0] for step in range(4000))
    assert counts["events:2"] == 0
    for name, share in (("events", 0.5), ("frames:2", 0.25), ("full", 0.25)):
        assert counts[name] / 4000 == pytest.approx(share, abs=0.03)


def test_without_a_mix_the_budget_is_the_models():
    assert BudgetMix({}).draw(0, 3, BASE) == ("model", BASE)
    assert BudgetMix({"full": 1}).all(BASE) == [BASE, parse_budget("full", BASE)]


def test_all_passes_over_a_generation_batch_share_its_draw(files, rows, mixed_rows, tmp_path):
    """Generation, old, reference and policy log-probabilities, over both iterations of two generations."""
    model, processor = build_tiny()
    budgets = {"events": 1, "events:2": 1, "frames:1": 1, "frames:2": 1, "frames:4": 1, "full": 1}
    config = CGRPOConfig(
        str(tmp_path),
        per_device_train_batch_size=8,
        num_generations=2,
        num_iterations=2,
        beta=0.1,
        max_completion_length=4,
        max_steps=6,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        max_frames=8,
        alpha=0.0,
        budgets=budgets,
    )
    dataset = to_dataset([*rows, *mixed_rows[1:3]], files)
    trainer = CGRPOTrainer(model, None, config, dataset, processing_class=processor)
    seen: list[tuple[int, CompressionConfig, int]] = []

    def note(module, args, kwargs):
        step, ids = trainer.state.global_step, kwargs["input_ids"]
        if ids.shape[1] > 1:
            seen.append((step, module.config.compression, int((ids == model.config.video_token_id).sum())))

    for each in (trainer.model, trainer.accelerator.unwrap_model(trainer.ref_model)):
        each.model.register_forward_pre_hook(note, with_kwargs=True)
    trainer.train()
    drawn = []
    for first in (0, 2, 4):
        own = [(compression, tokens) for step, compression, tokens in seen if step in (first, first + 1)]
        assert len(own) == 5 and len(set(own)) == 1, "generate, old, reference and two policy passes"
        drawn.append(own[0][0])
        assert drawn[-1] == config.budget_mix.draw(config.seed, first, processor.compression)[1]
    assert len(set(drawn)) > 1
    assert trainer.model.compression == processor.compression
    assert torch.isfinite(torch.tensor([row["loss"] for row in trainer.state.log_history if "loss" in row])).all()
