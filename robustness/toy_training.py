"""A training run of a moment, with the project's way to resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from marc.training.resume import ExactResume

STEPS = 5


class _Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1)
        self.dropout = nn.Dropout(0.5)  # so that a state of random numbers that was lost shows

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.line(self.dropout(x)).squeeze(-1) - labels).square().mean()}


class _Saved(TrainerCallback):
    def __init__(self, on_save: Callable[[int], None]) -> None:
        self._on_save = on_save

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._on_save(state.global_step)


def trainer(folder: Path, seed: int, on_save: Callable[[int], None]) -> ExactResume:
    """A trainer that saves after each of its five steps and keeps two checkpoints.

    Args:
        folder: Where checkpoints go.
        seed: Of data and weights.
        on_save: Called with the step after a checkpoint was saved.
    """
    torch.manual_seed(seed)
    rows: Any = [{"x": torch.randn(3), "labels": torch.randn(())} for _ in range(12)]
    options = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        save_steps=1,
        save_total_limit=2,
        logging_steps=1,
        per_device_train_batch_size=4,
        seed=seed,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    made = ExactResume(model=_Line(), args=options, train_dataset=rows, callbacks=[_Saved(on_save)])
    made.remove_callback(PrinterCallback)
    return made
