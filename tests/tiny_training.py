"""Trainers of the tiny model, as several tests of training need them."""

import math
from pathlib import Path

import torch
from transformers import Trainer

from marc.data.rows import TrainingRow
from marc.model import CompressionConfig
from marc.model.family import families
from marc.model.tiny import EMBEDDED_FAMILY, build_tiny
from marc.rewards import accuracy_reward
from marc.training import CGRPOConfig, CGRPOTrainer, to_dataset

GROUP = 2
FAMILIES = [family.name for family in families()]
OTHER_FAMILIES = [name for name in FAMILIES if name != EMBEDDED_FAMILY]
IN_FLOAT64 = [name for name in FAMILIES if not name.endswith("_moe")]
"""Families whose layers compute in float64; torch's product of grouped matrices does not."""
TWO_STEPS = {
    "max_steps": 2,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "max_frames": 8,
}
"""Two quiet steps on a CPU, of any trainer."""
OPTIONS = {
    **TWO_STEPS,
    "per_device_train_batch_size": 4,
    "num_generations": GROUP,
    "max_completion_length": 6,
}


def varied(completions, completion_ids, **columns) -> list[float]:
    """A reward that differs within groups, which a random model's accuracy does not."""
    return [sum(ids) % 11 / 10 for ids in completion_ids]


def make_trainer(
    files: Path,
    rows: list[TrainingRow],
    tmp_path: Path,
    *,
    family: str = EMBEDDED_FAMILY,
    compression=None,
    kwargs=None,
    **options,
) -> CGRPOTrainer:
    """C-GRPO with accuracy, a varied reward and retention, two steps unless told otherwise."""
    model, processor = build_tiny(family=family, compression=compression or CompressionConfig())
    return CGRPOTrainer(
        model=model,
        reward_funcs=[accuracy_reward, varied],
        args=CGRPOConfig(str(tmp_path / "run"), **{**OPTIONS, **options}),
        train_dataset=to_dataset(rows, files, style="plain"),
        processing_class=processor,
        **(kwargs or {}),
    )


def train_and_name_the_moved(trainer: Trainer) -> set[str]:
    """Train two steps, check that they are sound and that every trainable parameter moved, and name those."""
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    history = [row for row in trainer.state.log_history if "loss" in row]
    assert len(history) == 2
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in history)
    after = dict(trainer.model.named_parameters())
    still = [name for name, p in before.items() if torch.equal(after[name], p)]
    assert not still, still
    return set(before)


def length_reward(completions, **columns):
    """One for each character."""
    return [float(len(completion[-1]["content"])) for completion in completions]
