"""The experiment from start to end: data, starts, arms, measurements, report. Whatever is finished is kept.

    marc world reinforcement --output runs/reinforcement

A killed run goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from experiments.ablation.evaluation import EvaluationSet, ask, whole_videos
from experiments.ablation.rows import with_teacher
from experiments.ablation.settings import BUDGETS
from experiments.ablation.training import StageLog, Weights, load_weights, weights_of
from experiments.reinforcement.rows import draw_rows, with_few_traces
from experiments.reinforcement.settings import BUDGET, START, Arm, Settings, keep
from experiments.reinforcement.training import Run, train
from marc.data.rows import TrainingRow
from marc.inference.hf import HFBackend
from marc.io import write_atomically, write_json
from marc.model.loading import load_model
from marc.training.reader import VisualReader
from marc.world.frames import WorldFrames

TRAIN_SEED, CURVE_SEED = 100, 0
REASONS = "<think>"


class Laboratory:
    """What all arms need, made once.

    Args:
        settings: The experiment.
        output: Its folder.
    """

    def __init__(self, settings: Settings, output: Path) -> None:
        self.settings, self.output = settings, output
        self.teacher = HFBackend(*load_model(settings.model, device="cpu", dtype="float32"))

    @cached_property
    def rows(self) -> list[TrainingRow]:
        """What is trained on; what the teacher answered is kept on disk."""
        settings = self.settings
        drawn = draw_rows(
            settings.level, "train", TRAIN_SEED, videos=settings.train_videos, questions=settings.train_questions
        )
        known = with_teacher(self.teacher, drawn, self.output / "teacher", questions=settings.train_questions)
        return with_few_traces(known, settings.traced)

    @cached_property
    def heldout(self) -> dict[str, EvaluationSet]:
        """The held-out questions at one frame's tokens and at all tokens."""
        settings = self.settings
        return self._shown("test", settings.test_seed, settings.test_videos)

    @cached_property
    def validation(self) -> dict[str, EvaluationSet]:
        """Questions for the curves."""
        return self._shown("validation", CURVE_SEED, self.settings.curve_videos)

    def _shown(self, split: Any, seed: int, videos: int) -> dict[str, EvaluationSet]:
        settings = self.settings
        rows = draw_rows(settings.level, split, seed, videos=videos, questions=settings.test_questions)
        reader = VisualReader(self.teacher.processor, WorldFrames(), keep=videos)
        return {
            name: EvaluationSet(rows, whole_videos(self.teacher, reader, rows, BUDGETS[name]))
            for name in (BUDGET, "full")
        }

    def student(self, weights: Weights) -> HFBackend:
        """A model of some weights that nothing else uses."""
        model = deepcopy(self.teacher.model)
        load_weights(model, weights)
        return HFBackend(model, deepcopy(self.teacher.processor))

    def start(self, seed: int) -> Weights:
        """What all arms of a seed begin with, trained now or found on disk."""
        file = self.output / "starts" / f"seed{seed}.pt"
        if not file.exists():
            student = self.student(weights_of(self.teacher.model))
            self._train(student, START, self.settings.start_seconds, seed)
            write_atomically(file, lambda target: torch.save(weights_of(student.model), target))
        weights: Weights = torch.load(file, weights_only=True)
        return weights

    def _train(self, student: HFBackend, arm: Arm, seconds: float, seed: int) -> StageLog:
        run = Run(arm, seconds, seed * 1000 + (arm is START), self.output / "trainer", self.settings)
        validation = self.validation[BUDGET]
        return train(student, self.rows, run, lambda: {BUDGET: float(validation.right(student).mean())})

    def outcome(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Trains an arm and measures it; kept as JSON. The start is an arm of which nothing is left to train."""
        file = self.output / "arms" / f"{arm.file_name}_seed{seed}.json"
        if not file.exists():
            student = self.student(self.start(seed))
            log = StageLog() if arm is START else self._train(student, arm, self.settings.seconds, seed)
            right = {name: shown.right(student) for name, shown in self.heldout.items()}
            few = self.validation[BUDGET]
            said = ask(student, few.rows, few.shown)
            tokens = [len(student.processor.tokenizer(text).input_ids) for text in said]
            values = {
                "arm": arm.name,
                "seed": seed,
                "accuracy": {name: float(each.mean()) for name, each in right.items()},
                "reasons": sum(REASONS in text for text in said) / len(said),
                "tokens": sum(tokens) / len(tokens),
                "log": asdict(log),
                "right": {name: "".join(str(int(value)) for value in each) for name, each in right.items()},
            }
            write_json(file, values)
        row: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return row


def run_reinforcement(settings: Settings, output: Path, *, log: Callable[[str], None] = print) -> dict[str, Any]:
    """Runs what has not been run, on one core, and gathers everything.

    Args:
        settings: The experiment; a folder holds one.
        output: Its folder.
        log: Receives lines of progress.

    Returns:
        What ``results.json`` holds.

    Raises:
        ValueError: If the folder holds another experiment.
    """
    torch.set_num_threads(1)
    output.mkdir(parents=True, exist_ok=True)
    keep(settings, output)
    laboratory = Laboratory(settings, output)
    outcomes = []
    for seed in settings.seeds:
        for arm in settings.arms:
            outcomes.append(laboratory.outcome(arm, seed))
            log(line_of(outcomes[-1]))
    videos = [row.path for row in laboratory.heldout[BUDGET].rows]
    results = {"settings": asdict(settings), "videos": videos, "arms": outcomes}
    write_json(output / "results.json", results)
    return results


def line_of(row: dict[str, Any]) -> str:
    """An outcome in a line."""
    accuracies = ", ".join(f"{name} {100 * value:.1f}" for name, value in row["accuracy"].items())
    curve = " ".join(f"{at:.0f}s:{100 * each[BUDGET]:.1f}" for at, each in row["log"]["curve"])
    done = f"{row['arm']}, seed {row['seed']}, {row['log']['steps']} steps"
    return f"{done}: {accuracies}, reasons {row['reasons']:.2f}; {curve}"
