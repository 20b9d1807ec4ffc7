"""Supervised training of a contestant in its own layout until its processor time is spent, by the shipped trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback

from experiments.ablation.evaluation import STYLE, source
from experiments.ablation.training import Allowance, TimeLimit, learning_rate, quiet_options
from experiments.rivals.settings import RivalSettings
from marc.compression.config import CompressionConfig, parse_budget
from marc.data.rows import TrainingRow, parse_row
from marc.evaluation.arena.options import OURS, compression_of, fraction_of
from marc.inference.encoding import encode_once
from marc.inference.hf import HFBackend
from marc.inference.video_input import VisualPatches, inputs_at
from marc.training import VideoSFTConfig, VideoSFTTrainer, to_supervised
from marc.training.reader import VisualSource
from marc.types import VISION_MARKS
from marc.world.export import cuts_in_seconds, to_row, video_questions
from marc.world.frames import WorldFrames, video_of
from marc.world.levels import frame_pixels, sample


@dataclass(frozen=True)
class Teaching:
    """One training.

    Attributes:
        contestant: Whose layout the videos are shown in.
        parts: Budgets that steps are drawn from, all as often.
        seed: Of the order.
        settings: Of the experiment.
        folder: What the trainer calls its output folder, in which nothing is kept.
    """

    contestant: str
    parts: tuple[str, ...]
    seed: int
    settings: RivalSettings
    folder: Path


def training_rows(settings: RivalSettings) -> list[TrainingRow]:
    """Questions about videos of the level, with the true cuts."""
    rows: list[TrainingRow] = []
    for index in range(settings.train_videos):
        video = sample(settings.test.level, "train", settings.train_seed, index)
        asked = video_questions(video, "train", settings.train_seed, index, settings.train_questions)
        cuts = cuts_in_seconds(video)
        rows += [
            parse_row({**to_row(question, video, video.name, number), "cuts": cuts})
            for number, question in enumerate(asked, start=len(rows))
        ]
    return rows


Seen = dict[VisualSource, VisualPatches]
"""Videos and what the tower, which no training changes, has seen in them."""


def teach(student: HFBackend, teaching: Teaching, rows: Sequence[TrainingRow], seen: Seen) -> tuple[int, float]:
    """Trains a student in place until the processor time is spent.

    Args:
        student: Not trained before: trainers change how a model calls itself.
        teaching: How.
        rows: With cuts, of which only some contestants are told.
        seen: By earlier trainings; receives what this one sees.

    Returns:
        Updates, and the processor time of the steps.
    """
    if teaching.contestant not in OURS:
        rows = [replace(row, cuts=None) for row in rows]
    allowance = Allowance(teaching.settings.seconds)
    trainer = _trainer(student, teaching, rows, allowance, seen)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(TimeLimit(allowance, 1, dict))
    trainer.train()
    return trainer.state.global_step, allowance.spent


def _trainer(
    student: HFBackend, teaching: Teaching, rows: Sequence[TrainingRow], allowance: Allowance, seen: Seen
) -> VideoSFTTrainer:
    """The trainer, which has seen all videos."""
    settings, frames = teaching.settings, WorldFrames()
    shown = budgets(student, teaching, rows)
    student.compression = next(iter(shown.values()))
    student.model.model.visual.requires_grad_(False)
    weights = [weight for weight in student.model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=settings.learning_rate, betas=(0.9, 0.98))
    options: dict[str, Any] = {
        **quiet_options(rows, teaching.folder, teaching.seed),
        "budgets": dict.fromkeys(shown, 1.0) if len(shown) > 1 else None,
        "per_device_train_batch_size": settings.videos_together,
        "dataloader_drop_last": True,
        "pack_questions": True,
    }
    trainer = VideoSFTTrainer(
        model=student.model,
        processing_class=student.processor,
        frames=frames,
        optimizers=(optimizer, LambdaLR(optimizer, lambda _: learning_rate(allowance.share))),
        args=VideoSFTConfig(**options),
        train_dataset=to_supervised(rows, "", style=STYLE, questions_per_video=settings.questions_together),
    )
    reader = trainer._reader
    assert reader is not None
    for each in dict.fromkeys(map(source, rows)):
        if each in seen:
            reader.remember(each, seen[each])
        seen[each] = patches = reader.read(each)
        encode_once(trainer.model, [inputs_at([[patches]], reader.processor, own)[0][0] for own in shown.values()])
    return trainer


def budgets(student: HFBackend, teaching: Teaching, rows: Sequence[TrainingRow]) -> dict[str, CompressionConfig]:
    """The budgets of a training by name: parts of what every token of an average video costs."""
    side = student.processor.cell_pixels
    height, width = (pixels // side for pixels in frame_pixels(teaching.settings.test.level))
    cells = height * width
    grids = [sum(event.grids for event in video_of(path).events) for path in {row.path for row in rows} if path]
    whole = cells * sum(grids) / len(grids) + VISION_MARKS
    most = compression_of(teaching.contestant, int(whole), cells, student.compression)
    counts = [max(1, int(whole * fraction_of(part)) - VISION_MARKS) for part in teaching.parts]
    return {f"tokens:{count}": parse_budget(f"tokens:{count}", most) for count in counts}
