"""What the ablation compares: budgets, arms and their stages, the conditions under which they are measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from marc.compression.config import CompressionConfig, parse_budget
from marc.rewards import RetentionConfig

Method = Literal["sft", "c-grpo", "distill"]

BUDGETS = {
    name: parse_budget(name, CompressionConfig()) for name in ("full", "events", "frames:1", "frames:2", "frames:4")
}
"""How a video may be seen; ``events`` and ``frames:1`` cost one temporal grid's tokens."""
LAYOUTS = ("frames:1", "events")
"""The published merge and one small picture per event, at equal cost."""
MIXTURE = {"events": 0.3, "frames:1": 0.2, "frames:2": 0.1, "frames:4": 0.1, "full": 0.3}


@dataclass(frozen=True)
class Stage:
    """A method that an arm is trained with, and its part of the arm's time."""

    method: Method
    share: float

    @property
    def name(self) -> str:
        """Such as ``sft-0.5``."""
        return f"{self.method}-{self.share:g}"


@dataclass(frozen=True)
class Arm:
    """One row of the ablation.

    Attributes:
        name: Its name.
        group: What it is trained at: a layout, ``full`` or ``mixed``.
        budgets: Probability of each budget in a step; one for all but mixed budgets.
        stages: In order; their shares sum to 1. Empty: the teacher's weights as they are.
    """

    name: str
    group: str
    budgets: Mapping[str, float]
    stages: tuple[Stage, ...]

    @property
    def key(self) -> str:
        """Unique among the arms."""
        return f"{self.group}/{self.name}"

    def file_name(self, stages: int | None = None) -> str:
        """Of what is kept of the arm, or of its first stages, which arms of one group may share."""
        what = self.name if stages is None else "_".join(stage.name for stage in self.stages[:stages])
        return f"{self.group}_{what}".translate(str.maketrans("", "", "/>:"))


def _arms() -> Iterator[Arm]:
    yield Arm("practice", "full", {"full": 1.0}, (Stage("sft", 1.0),))
    recipes: dict[str, tuple[Stage, ...]] = {
        "SFT": (Stage("sft", 1.0),),
        "C-GRPO": (Stage("c-grpo", 1.0),),
        "SFT->SFT": (Stage("sft", 0.5), Stage("sft", 0.5)),
        "SFT->C-GRPO": (Stage("sft", 0.5), Stage("c-grpo", 0.5)),
        "distillation": (Stage("distill", 1.0),),
        "SFT->distillation": (Stage("sft", 0.5), Stage("distill", 0.5)),
    }
    for layout in LAYOUTS:
        for name, stages in recipes.items():
            yield Arm(name, layout, {layout: 1.0}, stages)
    yield Arm("mixed budgets", "mixed", MIXTURE, (Stage("sft", 1.0),))


ARMS = tuple(_arms())
"""All trained arms; the teacher as it is and the training-free students are its weights without training."""
START = Arm("start", "start", {}, ())
"""The teacher's weights, measured under every condition."""


@dataclass(frozen=True)
class Condition:
    """How a held-out video is shown.

    Attributes:
        budget: A key of `BUDGETS`.
        k: Events that are retrieved for the question; None: no retrieval, the whole video.
    """

    budget: str
    k: int | None = None

    @property
    def name(self) -> str:
        """Such as ``events, k=3``."""
        return self.budget if self.k is None else f"{self.budget}, k={self.k}"


@dataclass(frozen=True)
class MethodOptions:
    """How an arm is trained, whatever its method.

    Attributes:
        videos: Videos of a supervised step.
        questions: Questions about each; a step of the other methods has as many questions in all.
        generations: Sampled answers to each question (C-GRPO).
        samples: Sampled answers to each question (distillation); TRL's trainer wants two at least.
        learning_rates: Adam's peak for each method; it rises over the first part of a stage and falls to 0.
        retention: The retention reward, in its published form.
        curve_points: How often an arm is measured on its way.
        curve_videos: Validation videos that this takes.
    """

    videos: int = 8
    questions: int = 8
    generations: int = 8
    samples: int = 2
    learning_rates: Mapping[str, float] = field(default_factory=lambda: {"sft": 1e-3, "c-grpo": 5e-4, "distill": 1e-3})
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    curve_points: int = 3
    curve_videos: int = 12


@dataclass(frozen=True)
class AblationSettings:
    """The whole experiment.

    Attributes:
        model: The teacher: ``"tiny"``, a folder or a hub name. Its vision tower stays as it is.
        seeds: One repetition each: other batches, another order, other samples.
        seconds: Processor time in which an arm is trained.
        train_videos: Videos to train on.
        train_questions: Questions about each.
        train_seed: Of these videos.
        test_videos: Held-out videos, written as files and cut by the real segmenter.
        test_questions: Questions about each.
        test_seed: Of these videos and questions.
        segmenter: What cuts them into events, see `marc.memory.MemoryOptions`.
        retrieved: Numbers of events to retrieve.
        options: How arms are trained.
    """

    model: str = "tiny"
    seeds: tuple[int, ...] = (0, 1, 2)
    seconds: float = 90.0
    train_videos: int = 1024
    train_questions: int = 16
    train_seed: int = 100
    test_videos: int = 96
    test_questions: int = 24
    test_seed: int = 5
    segmenter: str = "transnetv2"
    retrieved: tuple[int, ...] = (3, 1)
    options: MethodOptions = field(default_factory=MethodOptions)

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different numbers, at least one, got {list(self.seeds)}")
        if not self.seconds > 0:
            raise ValueError(f"seconds must be positive, got {self.seconds}")
        for name in ("train_videos", "train_questions", "test_videos", "test_questions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.train_questions % self.options.questions:
            raise ValueError(
                f"train_questions must be a multiple of the {self.options.questions} questions about a video in a "
                f"step, got {self.train_questions}"
            )
        if self.train_videos < self.options.videos:
            raise ValueError(
                f"train_videos must be at least the {self.options.videos} of a step, got {self.train_videos}"
            )

    def conditions(self, arm: Arm) -> list[Condition]:
        """How an arm is measured: at full tokens, and at one frame's tokens with and without retrieval."""
        layouts = [arm.group] if arm.group in LAYOUTS else list(LAYOUTS)
        retrieved = (None, *self.retrieved)
        return [Condition("full"), *(Condition(layout, k) for layout in layouts for k in retrieved)]


REVISION = 2
"""Of what an arm's numbers follow from beside its settings; raised with every change that makes them incomparable."""


def to_json(settings: AblationSettings) -> dict[str, Any]:
    """The settings as JSON-serialisable values."""
    lists = {"seeds": list(settings.seeds), "retrieved": list(settings.retrieved)}
    return {"revision": REVISION, **asdict(settings), **lists}
