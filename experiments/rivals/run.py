"""Trains and measures contestants, one training after the other; what is finished is kept, so a kill loses one.

In the folder: ``weights/`` of each training, ``rounds/`` with what the arena asked of each, ``report.md``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch

from experiments.ablation.training import Weights, load_weights, weights_of
from experiments.rivals.settings import COLUMNS, Column, RivalSettings, file_name
from experiments.rivals.training import Seen, Teaching, teach, training_rows
from marc.data.rows import TrainingRow
from marc.evaluation.arena.rounds import Look, Round, play
from marc.inference.hf import HFBackend
from marc.io import make_folders, read_json, write_atomically, write_json
from marc.model.loading import load_model

Rounds = dict[tuple[Column, str, str], list[list[Round]]]
"""By column, contestant and part: the rounds of each seed."""


class Rivals:
    """The experiment in a folder.

    Args:
        settings: What it is; an earlier run in the folder must have had the same.
        folder: Keeps everything.
        log: Is told what is finished.

    Raises:
        ValueError: If the folder holds another experiment.
    """

    def __init__(self, settings: RivalSettings, folder: Path, log: Callable[[str], object]) -> None:
        self.settings, self.folder, self._log = settings, folder, log
        self._start = HFBackend(*load_model(settings.model, device="cpu", dtype="float32"))
        self._looks: dict[tuple[int, int], Look] = {}
        make_folders(folder / "weights")
        known, own = folder / "settings.json", json.loads(json.dumps(asdict(settings)))
        if known.exists() and read_json(known) != own:
            raise ValueError(f"{known} is of another experiment: choose another folder")
        write_json(known, own)

    @cached_property
    def rows(self) -> list[TrainingRow]:
        """What is trained on."""
        return training_rows(self.settings)

    def rounds(self) -> Rounds:
        """Everything, trained and asked now or found in the folder."""
        found: Rounds = {}
        for contestant in self.settings.contestants:
            seen: Seen = {}
            for column in COLUMNS:
                for part, seed, weights in self._weights(column, contestant, seen):
                    own = self._asked(column, contestant, part, seed, weights)
                    for each in part:
                        found.setdefault((column, contestant, each), []).append(own)
        return found

    def _weights(
        self, column: Column, contestant: str, seen: Seen
    ) -> Iterator[tuple[tuple[str, ...], int, Weights | None]]:
        """The budgets at which each training is asked, its seed and its weights."""
        if column == "training-free":
            yield self.settings.parts, 0, None
        for parts in self.settings.trainings(column):
            for seed in self.settings.seeds:
                yield parts, seed, self._trained(contestant, parts, seed, seen)

    def _trained(self, contestant: str, parts: tuple[str, ...], seed: int, seen: Seen) -> Weights:
        name = file_name(contestant, parts, seed)
        file = self.folder / "weights" / f"{name}.pt"
        if not file.exists():
            student = self._student(None)
            teaching = Teaching(contestant, parts, seed, self.settings, self.folder / "trainer")
            steps, seconds = teach(student, teaching, self.rows, seen)
            state = {"weights": weights_of(student.model), "steps": steps, "seconds": seconds}
            write_atomically(file, lambda target: torch.save(state, target))
            self._log(f"{name}: {steps} steps in {seconds:.0f} s of processor time")
        weights: Weights = torch.load(file, weights_only=True)["weights"]
        return weights

    def _student(self, weights: Weights | None) -> HFBackend:
        """A model that nothing else uses."""
        model = deepcopy(self._start.model)
        if weights is not None:
            load_weights(model, weights)
        return HFBackend(model, deepcopy(self._start.processor))

    def _asked(
        self, column: Column, contestant: str, parts: tuple[str, ...], seed: int, weights: Weights | None
    ) -> list[Round]:
        """The rounds of the held-out videos with some weights."""
        name = column.split()[0] + "_" + file_name(contestant, parts, seed)
        student, options = self._student(weights), self.settings.arena((contestant,), parts)
        folder = self.folder / "rounds" / name
        played = play(student.model, student.processor, options, folder, looks=self._looks)
        rounds = [each for each, _ in played]
        right = [mark for each in rounds for part in parts for mark in each.outcomes[contestant, part].right]
        self._log(f"{name}: {100 * sum(right) / len(right):.1f} %")
        return rounds
