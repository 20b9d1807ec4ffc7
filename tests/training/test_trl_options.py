"""TRL's own options on videos, one step of each: none of them is lost on the way."""

import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_training import make_trainer

LOSSES = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo")
OPTIONS = {
    "entropy quantile": {"top_entropy_quantile": 0.5},
    "entropy bonus": {"entropy_coef": 0.01},
    "delta": {"delta": 2.0, "num_iterations": 2},
    "off-policy mask": {"off_policy_mask_threshold": 0.5, "num_iterations": 2},
    "bias-corrected KL": {"beta": 0.1, "use_bias_correction_kl": True},
    "moving reference": {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 1},
    "normalised objectives": {"multi_objective_aggregation": "normalize_then_sum"},
    "weights of rewards": {"reward_weights": [1.0, 0.5, 2.0]},
    "rewards by name": {
        "rewards": ["accuracy", "format", "tiny_training:length_reward"],
        "reward_weights": [1.0, 0.5, 0.1],
    },
    "steps per generation": {"per_device_train_batch_size": 2, "steps_per_generation": 2, "num_iterations": 2},
    "sampling": {"top_p": 0.9, "top_k": 10, "min_p": 0.01, "repetition_penalty": 1.1},
    "checkpointing and accumulation": {
        "gradient_checkpointing": True,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
    },
}


def one_step(files, rows, tmp_path, **options):
    trainer = make_trainer(files, rows, tmp_path, **{"max_steps": 1, **options})
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    (row,) = [row for row in trainer.state.log_history if "loss" in row]
    assert math.isfinite(row["loss"]) and row["grad_norm"] > 0
    assert not [n for n, weight in trainer.model.named_parameters() if torch.equal(weight, before[n])]
    return trainer


@pytest.mark.parametrize("loss", LOSSES)
def test_losses(loss, files, rows, tmp_path):
    level = "sequence" if loss == "luspo" else "token"
    one_step(files, rows, tmp_path, loss_type=loss, importance_sampling_level=level)


@pytest.mark.parametrize("case", OPTIONS)
def test_options(case, files, rows, tmp_path):
    one_step(files, rows, tmp_path, **OPTIONS[case])


def test_truncated_completions_teach_nothing(files, rows, tmp_path):
    trainer = make_trainer(files, rows, tmp_path, mask_truncated_completions=True, max_steps=1)
    trainer.train()
    assert trainer.state.log_history[0]["completions/clipped_ratio"] == 1
    assert trainer.state.log_history[0]["grad_norm"] == 0


def test_evaluation_during_training(files, rows, mixed_rows, tmp_path):
    from marc.training import to_dataset

    evaluated = to_dataset([*rows, *mixed_rows[1:3]], files)
    options = {"eval_strategy": "steps", "eval_steps": 1, "eval_on_start": True, "per_device_eval_batch_size": 4}
    trainer = make_trainer(files, rows, tmp_path, kwargs={"eval_dataset": evaluated}, max_steps=1, **options)
    trainer.train()
    evaluations = [row for row in trainer.state.log_history if "eval_loss" in row]
    assert [row["step"] for row in evaluations] == [0, 1]
    assert all(math.isfinite(row["eval_reward"]) and "eval_retention/eta" in row for row in evaluations)


def test_completions_and_tensorboard(files, rows, mixed_rows, tmp_path, monkeypatch):
    folder = tmp_path / "board"
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(folder))
    dataset = [rows[0], mixed_rows[2]]
    make_trainer(files, dataset, tmp_path, report_to="tensorboard", log_completions=True).train()
    table = pq.read_table(sorted((tmp_path / "run" / "completions").glob("*.parquet"))[-1])
    columns = {"step", "prompt", "completion", "accuracy_reward", "varied", "retention", "advantage"}
    assert columns <= set(table.column_names)
    assert any("0.mp4] What is number 0?" in prompt for prompt in table["prompt"].to_pylist())
    events = EventAccumulator(str(next(Path(folder).rglob("events.*")).parent)).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/retention/eta", "train/groups/zero_variance", "train/bad_videos", "train/reward"} <= tags
    assert len(events.Scalars("train/reward")) == 2


def test_wandb_offline(files, rows, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    trainer = make_trainer(files, rows, tmp_path, report_to="wandb", log_completions=True, max_steps=1)
    trainer.train()
    summary = dict(wandb.run.summary)
    wandb.finish()
    assert "train/retention/eta" in summary and "completions" in summary
    assert list(tmp_path.rglob("*.wandb"))
