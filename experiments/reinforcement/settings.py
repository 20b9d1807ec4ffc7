"""What is compared: the start, the arms that go on from it, and the sizes of everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from experiments.kept_settings import keep_settings
from marc.world.scenes import Level

Method = Literal["sft", "rejection", "c-grpo"]

BUDGET = "events"
"""One frame's tokens, in the layout in which the order of things can be answered."""
PAPER: dict[str, Any] = {
    "rewards": ["accuracy", "format"],
    "retention_form": "reward",
    "loss_type": "grpo",
    "scale_rewards": "group",
    "use_bias_correction_kl": False,
    "beta": 0.04,
}
"""The objective of ``configs/grpo_3b_full.yaml``, in so far as it is not TRL's or the trainer's default."""
OURS: dict[str, Any] = {
    "rewards": ["accuracy", "format"],
    "retention_form": "advantage",
    "loss_type": "dapo",
    "scale_rewards": "group",
    "beta": 0.0,
    "dynamic_sampling": 2,
}
"""That of ``configs/grpo_3b_ours.yaml``, likewise."""
SINGLE_CHANGES: dict[str, dict[str, Any]] = {
    "scaled by nothing": {"scale_rewards": "none"},
    "scaled by the batch": {"scale_rewards": "batch"},
    "retention by accuracy": {"retention_credit": "accuracy"},
    "retention on advantages": {"retention_form": "advantage"},
    "dynamic sampling": {"dynamic_sampling": 2},
    "margin curriculum": {"curriculum": 0.8},
    "length reward": {"length_coef": 0.2},
    "learned selection": {
        "budgets": {"events": 1.0, "frames:1": 1.0, "full": 1.0},
        "selection_rate": 2.0,
        "selection_cost": 0.1,
    },
}
"""What is changed of the paper's objective, one thing at a time."""
REJECTION: dict[str, Any] = {"rewards": ["accuracy"], "loss_type": "dapo", "beta": 0.0, "alpha": 0.0}
"""Of rejection sampling, whose rewards are what is right."""


@dataclass(frozen=True)
class Arm:
    """A way to go on from the start.

    Attributes:
        name: Its name.
        method: Supervised, on the student's own right answers, or by C-GRPO.
        learning_rate: Adam's peak.
        options: Of the trainer, beside what all arms have.
        traced_only: Train on the rows that have a trace, and leave the others out.
    """

    name: str
    method: Method
    learning_rate: float
    options: Mapping[str, Any] = field(default_factory=dict)
    traced_only: bool = False

    @property
    def file_name(self) -> str:
        """Of what is kept of it."""
        return "".join(letter if letter.isalnum() else "_" for letter in self.name)


SFT_RATE, POLICY_RATE = 1e-3, 5e-4
"""The ablation's."""
START = Arm("start", "sft", SFT_RATE)
PAPERS = "C-GRPO, the paper's"
ARMS = (
    Arm("SFT->SFT", "sft", SFT_RATE),
    Arm("SFT on traces alone", "sft", SFT_RATE, traced_only=True),
    Arm("rejection sampling", "rejection", POLICY_RATE, REJECTION),
    Arm(PAPERS, "c-grpo", POLICY_RATE, PAPER),
    Arm("C-GRPO, ours", "c-grpo", POLICY_RATE, OURS),
)
VARIANTS = tuple(Arm(name, "c-grpo", POLICY_RATE, {**PAPER, **change}) for name, change in SINGLE_CHANGES.items())
"""The paper's with single changes."""


@dataclass(frozen=True)
class Settings:
    """The experiment.

    Attributes:
        model: Whose weights the start begins with, and the teacher that sees every token.
        level: Of the micro-world.
        seeds: One repetition each: other batches, another order, other samples.
        start_seconds: Processor time of the start.
        seconds: Processor time of an arm.
        traced: Part of the questions that have a trace.
        train_videos: Videos to train on.
        train_questions: Questions drawn about each; those with long answers are left out.
        test_videos: Held-out videos.
        test_questions: Questions drawn about each.
        test_seed: Of the held-out videos.
        videos: Videos of a supervised step.
        questions: Questions about each.
        prompts: Questions of a step of the others.
        generations: Sampled answers to each.
        curve_points: How often an arm is measured on its way.
        curve_videos: Validation videos that this takes.
        variants: Whether the paper's objective with single changes is compared, too.
    """

    model: str = "tiny"
    level: Level = "easy"
    seeds: tuple[int, ...] = (0, 1, 2)
    start_seconds: float = 12.0
    seconds: float = 10.0
    traced: float = 0.05
    train_videos: int = 64
    train_questions: int = 16
    test_videos: int = 24
    test_questions: int = 16
    test_seed: int = 8
    videos: int = 8
    questions: int = 8
    prompts: int = 32
    generations: int = 8
    curve_points: int = 3
    curve_videos: int = 6
    variants: bool = False

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different numbers, at least one, got {list(self.seeds)}")
        if not 0 < self.traced <= 1:
            raise ValueError(f"traced must lie in (0, 1], got {self.traced}")
        if min(self.seconds, self.start_seconds) <= 0:
            raise ValueError(f"seconds must be positive, got {self.start_seconds} and {self.seconds}")

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What is compared, from the start on."""
        return (START, *ARMS, *(VARIANTS if self.variants else ()))


REVISION = 2
"""Of what an arm's numbers follow from beside its settings; raised with every change that makes them incomparable."""


def keep(settings: Settings, output: Path) -> None:
    """Writes the settings, or compares them with those that the folder was made with; seeds may be added.

    Raises:
        ValueError: If the folder holds another experiment.
    """
    arms = {arm.name: asdict(arm) for arm in settings.arms}
    keep_settings({"revision": REVISION, **asdict(settings), "seeds": None, "arms": arms}, output)
