"""Supervised trainers of the tiny model, as several tests need them."""

import torch
from tiny_training import TWO_STEPS

from marc.data.rows import TrainingRow
from marc.model import CompressionConfig
from marc.model.tiny import EMBEDDED_FAMILY, build_tiny
from marc.training import VideoSFTConfig, VideoSFTTrainer, to_supervised


def make_trainer(
    files,
    rows: list[TrainingRow],
    tmp_path,
    *,
    family=EMBEDDED_FAMILY,
    compression=None,
    data=None,
    kwargs=None,
    **options,
):
    model, processor = build_tiny(family=family, compression=compression or CompressionConfig())
    defaults = {
        **TWO_STEPS,
        "bf16": False,
        "per_device_train_batch_size": 2,
    }
    return VideoSFTTrainer(
        model=model,
        args=VideoSFTConfig(str(tmp_path / "run"), **{**defaults, **options}),
        train_dataset=to_supervised(rows, files, style="plain", reasoning=False, **(data or {})),
        processing_class=processor,
        **(kwargs or {}),
    )


def batch_of(trainer: VideoSFTTrainer, items: list[int]) -> dict:
    return trainer.data_collator([trainer.train_dataset[i] for i in items])


def loss_of(trainer: VideoSFTTrainer, batch: dict, count=None) -> torch.Tensor:
    trainer.model.train()
    return trainer.compute_loss(trainer.model, batch, num_items_in_batch=count)
