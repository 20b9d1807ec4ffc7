"""Training of one stage within an allowance of processor time, with its learning curve."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from experiments.ablation.methods import Method
from experiments.ablation.pool import TrainingPool
from experiments.ablation.settings import MethodOptions
from marc.model import MarcForConditionalGeneration

Weights = dict[str, torch.Tensor]


@dataclass
class StageLog:
    """What a stage did.

    Attributes:
        seconds: Processor time in steps; measuring is not counted.
        steps: Updates.
        questions: Questions seen.
        completions: Answers drawn.
        curve: Processor seconds and what was measured then.
        stats: Mean of each of the method's numbers over the stage.
    """

    seconds: float = 0.0
    steps: int = 0
    questions: int = 0
    completions: int = 0
    curve: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    stats: dict[str, float] = field(default_factory=dict)


def trainable(model: MarcForConditionalGeneration) -> nn.Module:
    """The part that is trained, and kept as an arm's weights: the language model."""
    return model.model.language_model


def learning_rate(peak: float, progress: float) -> float:
    """Up from a tenth over the first part of a stage, then linearly down to 0."""
    return peak * min(0.1 + 20 * progress, 1 - progress)


def train_stage(
    model: MarcForConditionalGeneration,
    method: Method,
    pool: TrainingPool,
    budgets: Mapping[str, float],
    options: MethodOptions,
    *,
    peak: float,
    seconds: float,
    seed: int,
    measure: Callable[[], dict[str, float]],
) -> StageLog:
    """Trains in place until the processor time is spent.

    Args:
        model: The student.
        method: Makes a loss of a batch.
        pool: Makes batches.
        budgets: At which the student sees videos.
        options: Sizes of batches, points of the curve.
        peak: Learning rate.
        seconds: Processor seconds of all steps together.
        seed: Of batches and samples: stages of the same seed see the same questions in the same order.
        measure: Accuracies for the curve.
    """
    model.requires_grad_(False)
    weights = list(trainable(model).requires_grad_(True).parameters())
    optimizer = torch.optim.Adam(weights, lr=peak, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(seed)
    log, numbers = StageLog(curve=[(0.0, measure())]), dict[str, list[float]]()
    while log.seconds < seconds:
        begin = time.process_time()
        optimizer.param_groups[0]["lr"] = learning_rate(peak, log.seconds / seconds)
        batch = pool.batch(np.random.default_rng((seed, log.steps)), budgets, options)
        step = method(model, batch, generator)
        if step.loss is not None:
            optimizer.zero_grad(set_to_none=True)
            step.loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
        log.seconds += time.process_time() - begin
        log.steps += 1
        log.questions += batch.a_full.numel()
        log.completions += step.completions
        for name, value in step.stats.items():
            numbers.setdefault(name, []).append(value)
        if log.seconds >= seconds * len(log.curve) / options.curve_points:
            log.curve.append((log.seconds, measure()))
    log.stats = {name: float(np.mean(values)) for name, values in numbers.items()}
    return log
