"""An arm: a trainer that goes on from the start's weights until its processor time is spent.

Supervised arms are `VideoSFTTrainer`, C-GRPO is `CGRPOTrainer` with the options of a recipe. Rejection sampling
(`RejectionSampling`) is `CGRPOTrainer`, too, so that sampling costs the same: every right answer counts alike, every
other one not at all, which is supervised training on the student's own right answers (RAFT). Clock, schedule and
optimizer are the ablation's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback

from experiments.ablation.evaluation import STYLE, longest_answer
from experiments.ablation.settings import BUDGETS
from experiments.ablation.training import (
    Allowance,
    StageLog,
    TimeLimit,
    learning_rate,
    means,
    quiet_options,
    see_videos,
)
from experiments.reinforcement.rows import traced
from experiments.reinforcement.settings import BUDGET, Arm, Settings
from marc.data.rows import TrainingRow
from marc.grading import extract_answer
from marc.inference.hf import HFBackend
from marc.rewards.accuracy import completion_text
from marc.training import CGRPOConfig, CGRPOTrainer, VideoSFTConfig, VideoSFTTrainer, to_dataset, to_supervised
from marc.world.frames import WorldFrames


class RejectionSampling(CGRPOTrainer):
    """Likelihood of the sampled answers that are right; the others are left out."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        said = self._tokenizer.batch_decode(output["completion_ids"], skip_special_tokens=True)
        right = [
            extract_answer(completion_text(text)) == extract_answer(row["solution"])
            for text, row in zip(said, inputs, strict=True)
        ]
        return {**output, "advantages": torch.tensor(right, dtype=torch.float32, device=output["advantages"].device)}


@dataclass(frozen=True)
class Run:
    """One arm of one seed.

    Attributes:
        arm: What is done.
        seconds: Processor seconds of all steps together.
        seed: Of the order of questions and of samples.
        folder: What the trainer calls its output folder, in which nothing is kept.
        settings: Sizes.
    """

    arm: Arm
    seconds: float
    seed: int
    folder: Path
    settings: Settings


def train(
    student: HFBackend, rows: Sequence[TrainingRow], run: Run, measure: Callable[[], dict[str, float]]
) -> StageLog:
    """Trains a student in place until the processor time is spent.

    Args:
        student: Not trained before: trainers change how a model calls itself.
        rows: All rows, with the teacher's accuracies.
        run: How, and for how long.
        measure: Accuracies of the student for the curve.
    """
    allowance = Allowance(run.seconds)
    limit = TimeLimit(allowance, run.settings.curve_points, measure)
    trainer = make_trainer(student, rows, run, allowance)
    trainer.add_callback(limit)
    trainer.train()
    steps, settings = trainer.state.global_step, run.settings
    sampled = run.arm.method != "sft"
    questions = steps * (settings.prompts if sampled else settings.videos * settings.questions)
    completions = questions * settings.generations if sampled else 0
    history = trainer.state.log_history
    ends = {"first": history[:1], "last": [row for row in history if "loss" in row][-1:]}
    of_ends = {f"{end}/{name}": value for end, some in ends.items() for name, value in means(some).items()}
    stats = {**means(history), **of_ends}
    return StageLog(allowance.spent, steps, questions, completions, limit.curve, stats)


def make_trainer(
    student: HFBackend, rows: Sequence[TrainingRow], run: Run, allowance: Allowance
) -> CGRPOTrainer | VideoSFTTrainer:
    """The trainer of a run, which has seen all videos; see `train`."""
    arm = run.arm
    student.compression = BUDGETS[BUDGET]
    student.model.model.visual.requires_grad_(False)
    weights = [weight for weight in student.model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=arm.learning_rate, betas=(0.9, 0.98))
    given: dict[str, Any] = {
        "model": student.model,
        "processing_class": student.processor,
        "frames": WorldFrames(),
        "optimizers": (optimizer, LambdaLR(optimizer, lambda _: learning_rate(allowance.share))),
    }
    longest = longest_answer(student.processor, rows)
    rows = traced(rows) if arm.traced_only else rows
    options = trainer_options(rows, run)
    trainer: CGRPOTrainer | VideoSFTTrainer
    if arm.method == "sft":
        items = to_supervised(rows, "", style=STYLE, questions_per_video=run.settings.questions)
        trainer = VideoSFTTrainer(args=VideoSFTConfig(**options), train_dataset=items, **given)
    else:
        config = CGRPOConfig(**options, max_completion_length=longest)
        trainer_class = RejectionSampling if arm.method == "rejection" else CGRPOTrainer
        trainer = trainer_class(args=config, train_dataset=to_dataset(rows, "", style=STYLE), **given)
    trainer.remove_callback(PrinterCallback)
    see_videos(trainer, rows, {BUDGET, *arm.options.get("budgets", ())})
    return trainer


def trainer_options(rows: Sequence[TrainingRow], run: Run) -> dict[str, Any]:
    """Fields of the trainer's configuration, but the length of completions."""
    settings = run.settings
    common = quiet_options(rows, run.folder, run.seed)
    if run.arm.method == "sft":
        packed = {"per_device_train_batch_size": settings.videos, "dataloader_drop_last": True, "pack_questions": True}
        return {**common, **packed, **run.arm.options}
    batch = {
        "per_device_train_batch_size": settings.prompts * settings.generations,
        "num_generations": settings.generations,
        "temperature": 1.0,
    }
    return {**common, **batch, **run.arm.options}
