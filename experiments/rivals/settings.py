"""What is compared: contestants of the arena, as they are and after supervised training in their own layouts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from marc.evaluation.arena.options import CONTESTANTS, ArenaOptions, fraction_of
from marc.world.options import WorldOptions

Column = Literal["training-free", "own budget", "mixed budgets"]
COLUMNS: tuple[Column, ...] = ("training-free", "own budget", "mixed budgets")
"""The model as it is; taught in the contestant's layout at the budget at which it is asked; at all of the budgets."""


@dataclass(frozen=True)
class RivalSettings:
    """The experiment.

    Attributes:
        model: The model before training: ``"tiny"`` (embedded), or a folder.
        contestants: Of `marc.evaluation.arena.options.CONTESTANTS`.
        parts: Budgets, as parts of what every token costs in the prompt.
        seeds: Repetitions of training: other batches, another order.
        seconds: Processor time of each training.
        train_videos: Videos to train on.
        train_questions: Questions about each.
        questions_together: Of a video in one step.
        videos_together: Videos in one step.
        learning_rate: Adam's peak.
        test: Held-out videos of the level, which is also that of the training.
        train_seed: Of the videos to train on.
    """

    model: str = "tiny"
    contestants: tuple[str, ...] = CONTESTANTS
    parts: tuple[str, ...] = ("1/32", "1/10", "1/4")
    seeds: tuple[int, ...] = (0, 1, 2)
    seconds: float = 60.0
    train_videos: int = 512
    train_questions: int = 16
    questions_together: int = 8
    videos_together: int = 8
    learning_rate: float = 1e-3
    test: WorldOptions = field(default_factory=lambda: WorldOptions(seed=5, videos=60, questions=24))
    train_seed: int = 100

    def __post_init__(self) -> None:
        self.arena(self.contestants, self.parts)
        if not self.seeds or not self.seconds > 0:
            raise ValueError(f"seeds and seconds are needed, got {list(self.seeds)} and {self.seconds}")
        if self.train_questions % self.questions_together or self.train_videos < self.videos_together:
            raise ValueError("train_questions must be a multiple of those of a step, train_videos those of a step")

    def arena(self, contestants: tuple[str, ...], parts: tuple[str, ...]) -> ArenaOptions:
        """How some contestants are measured."""
        return ArenaOptions(self.test, 1, contestants, parts, every_token=False)

    def trainings(self, column: Column) -> list[tuple[str, ...]]:
        """The budgets of each training of a contestant."""
        budgets: dict[Column, list[tuple[str, ...]]] = {
            "training-free": [],
            "own budget": [(part,) for part in self.parts],
            "mixed budgets": [self.parts],
        }
        return budgets[column]


def file_name(contestant: str, parts: tuple[str, ...], seed: int) -> str:
    """Of what is kept of a training, or of what its weights answered."""
    budgets = "_".join(f"1in{float(1 / fraction_of(part)):g}" for part in parts)
    return f"{contestant.replace(' ', '-')}_{budgets}_seed{seed}"
