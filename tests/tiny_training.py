"""Trainers of the tiny model, as several tests of training need them."""

from pathlib import Path

from marc.data.rows import TrainingRow
from marc.model import CompressionConfig
from marc.model.tiny import build_tiny
from marc.rewards import accuracy_reward
from marc.training import CGRPOConfig, CGRPOTrainer, to_dataset

GROUP = 2
OPTIONS = {
    "per_device_train_batch_size": 4,
    "num_generations": GROUP,
    "max_completion_length": 6,
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


def varied(completions, completion_ids, **columns) -> list[float]:
    """A reward that differs within groups, which a random model's accuracy does not."""
    return [sum(ids) % 11 / 10 for ids in completion_ids]


def make_trainer(
    files: Path, rows: list[TrainingRow], tmp_path: Path, *, compression=None, kwargs=None, **options
) -> CGRPOTrainer:
    """C-GRPO with accuracy, a varied reward and retention, two steps unless told otherwise."""
    model, processor = build_tiny(compression=compression or CompressionConfig())
    return CGRPOTrainer(
        model=model,
        reward_funcs=[accuracy_reward, varied],
        args=CGRPOConfig(str(tmp_path / "run"), **{**OPTIONS, **options}),
        train_dataset=to_dataset(rows, files),
        processing_class=processor,
        **(kwargs or {}),
    )
