"""What the arms of one process need, made once, and what is kept of them on disk: rows, stages, outcomes."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from experiments.ablation.evaluation import EvaluationSet, whole_videos
from experiments.ablation.heldout import HeldOut, prepare_heldout, show_heldout
from experiments.ablation.rows import draw_rows, with_teacher
from experiments.ablation.settings import BUDGETS, LAYOUTS, START, AblationSettings, Arm
from experiments.ablation.training import StageLog, StageOptions, Weights, load_weights, train_stage, weights_of
from marc.data.rows import TrainingRow
from marc.inference.hf import HFBackend
from marc.io import sha256_tensors, write_atomically, write_json
from marc.model.loading import load_model
from marc.training.reader import VisualReader
from marc.world.frames import WorldFrames

CURVE_SEED = 0


class Context:
    """Everything that the arms of one process need.

    Args:
        settings: The experiment.
        output: Its folder.
    """

    def __init__(self, settings: AblationSettings, output: Path) -> None:
        self.settings, self.output = settings, output
        self.teacher = HFBackend(*load_model(settings.model, device="cpu", dtype="float32"))
        self.start = weights_of(self.teacher.model)
        self.fingerprint = sha256_tensors(self.teacher.model.state_dict())[:12]

    @cached_property
    def rows(self) -> list[TrainingRow]:
        """What is trained on; what the teacher answered is kept on disk."""
        settings = self.settings
        drawn = draw_rows(
            "train", settings.train_seed, videos=settings.train_videos, questions=settings.train_questions
        )
        return with_teacher(self.teacher, drawn, self.output / "teacher", questions=settings.train_questions)

    @cached_property
    def heldout(self) -> HeldOut:
        """The held-out videos."""
        return prepare_heldout(self.output / "heldout", self.settings)

    @cached_property
    def conditions(self) -> dict[str, EvaluationSet]:
        """The held-out questions under every condition, by its name."""
        conditions = tqdm(self.settings.conditions(START), desc="held-out videos", unit="condition", delay=5)
        return {each.name: show_heldout(self.teacher, self.heldout, each) for each in conditions}

    @cached_property
    def validation(self) -> dict[str, EvaluationSet]:
        """Questions for the curves, at every budget that is measured there."""
        videos = self.settings.options.curve_videos
        rows = draw_rows("validation", CURVE_SEED, videos=videos, questions=self.settings.train_questions)
        reader = VisualReader(self.teacher.processor, WorldFrames(), keep=videos)
        return {
            name: EvaluationSet(rows, whole_videos(self.teacher, reader, rows, BUDGETS[name]))
            for name in ("full", *LAYOUTS)
        }

    def student(self, weights: Weights) -> HFBackend:
        """A model of some weights that nothing else uses."""
        model = deepcopy(self.teacher.model)
        load_weights(model, weights)
        return HFBackend(model, deepcopy(self.teacher.processor))

    def trained(self, arm: Arm, stages: int, seed: int) -> tuple[Weights, list[StageLog]]:
        """An arm's weights after some of its stages, trained now or found on disk, and what each stage did."""
        if not stages:
            return self.start, []
        file = self.output / "stages" / f"{arm.file_name(stages)}_seed{seed}.pt"
        weights, logs = self.trained(arm, stages - 1, seed)
        if not file.exists():
            student = self.student(weights)
            log = self.train(student, arm, stages, seed)
            state = {"weights": weights_of(student.model), "log": asdict(log)}
            write_atomically(file, lambda target: torch.save(state, target))
        state = torch.load(file, weights_only=True)
        return state["weights"], [*logs, StageLog(**state["log"])]

    def train(self, student: HFBackend, arm: Arm, stages: int, seed: int) -> StageLog:
        """Trains a student in the last of some stages of an arm."""
        stage, settings = arm.stages[stages - 1], self.settings
        budgets = [name for name in ("full", *LAYOUTS) if name in arm.budgets or name == "full"]
        return train_stage(
            student,
            self.rows,
            StageOptions(
                method=stage.method,
                budgets=arm.budgets,
                seconds=settings.seconds * stage.share,
                seed=seed * 1000 + stages,
                teacher=settings.model,
                folder=self.output / "trainer",
                batch=settings.options,
            ),
            lambda: {name: float(self.validation[name].right(student).mean()) for name in budgets},
        )

    def outcome(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Trains an arm and measures it under all its conditions; kept as JSON."""
        file = self.outcome_file(arm, seed)
        if not file.exists():
            weights, logs = self.trained(arm, len(arm.stages), seed)
            student = self.student(weights)
            names = [condition.name for condition in self.settings.conditions(arm)]
            right = {name: self.conditions[name].right(student) for name in names}
            write_json(
                file,
                {
                    "arm": arm.key,
                    "seed": seed,
                    "accuracy": {name: float(values.mean()) for name, values in right.items()},
                    "stages": [asdict(log) for log in logs],
                    "right": {name: "".join(str(int(value)) for value in values) for name, values in right.items()},
                },
            )
        row: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return row

    def outcome_file(self, arm: Arm, seed: int) -> Path:
        """Where an arm's outcome is kept."""
        return self.output / "arms" / f"{arm.file_name()}_seed{seed}.json"
