"""The recipe of the embedded model: `TrainSettings` and its curriculum of `Phase`\ s, read from YAML.

settings = read_settings(Path("configs/world_tiny.yaml"))
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from experiments.tiny_model.families import FAMILIES
from marc.world.questions import KINDS


@dataclass(frozen=True)
class Phase:
    """A stretch of training with its own mixture.

    Attributes:
        steps: Most steps of it.
        layouts: Probability of each layout: ``events``, ``full``, ``pooled-K`` (runs of K grids averaged) or
            ``blank`` (no picture).
        styles: Probability of each prompt style of `marc.data.prompts`.
        until: End early once the running accuracy, averaged over the kinds of questions asked, reaches this.
        max_events: Most events of a video.
        stories: Probability of a step that asks only one question with a long answer about each video.
        kinds: Kinds of questions; empty is all of them.
        choices: Probability of a step that asks multiple-choice questions.
        rate: Factor on the learning rates.
        final_rate: What the factor falls to, linearly, by the last of `steps`; ``None`` is no fall.
        noise: Probability of a step with imperfect visual tokens, see `experiments.tiny_model.batches.lay_out`.
        save: Name of a folder, beside the checkpoints, for the model as it is at the end of the phase.
    """

    steps: int
    layouts: dict[str, float]
    styles: dict[str, float]
    until: float | None = None
    max_events: int = 4
    stories: float = 0.0
    kinds: tuple[str, ...] = ()
    choices: float = 0.3
    rate: float = 1.0
    final_rate: float | None = None
    noise: float = 1.0
    save: str | None = None

    def __post_init__(self) -> None:
        for name in ("layouts", "styles"):
            shares = getattr(self, name)
            if abs(sum(shares.values()) - 1) > 1e-6:
                raise ValueError(f"a phase's {name} must sum to 1, got {shares}")
        if unknown := set(self.kinds) - set(KINDS):
            raise ValueError(f"unknown kinds of questions {sorted(unknown)}; known are {', '.join(KINDS)}")
        if self.until is not None and not 0 < self.until <= 1:
            raise ValueError(f"a phase's until must be an accuracy in (0, 1], got {self.until}")

    def rate_at(self, step: int) -> float:
        """The factor on the learning rates at a step of the phase."""
        final = self.rate if self.final_rate is None else self.final_rate
        return self.rate + (final - self.rate) * step / self.steps


@dataclass(frozen=True)
class TrainSettings:
    """The recipe.

    Attributes:
        seed: Seed of everything.
        family: Model family, see `experiments.tiny_model.families`.
        start_from: Model whose language model is taken over instead of random weights, as `marc.load_model` takes it.
        layers: Layers of the language model; those that `start_from` has not come behind its own.
        rope_theta: Base of its rotary positions.
        tower_blocks: Blocks of the vision tower, each of which sees a whole picture of the world; ``None``: two.
        tower_steps: Steps of the tower's pre-training; 0: it is that of `start_from`, too.
        tower_batch: Grids of a step.
        variants: Clips of every label in the feature bank.
        phases: The language model's curriculum.
        videos: Videos of a step.
        questions: Questions packed for each video.
        muon_learning_rate: Peak, for matrices.
        adam_learning_rate: Peak, for everything else.
        warmup: Steps over which the rates rise.
        checkpoint_every: Steps between checkpoints.
        evaluate_every: Steps between evaluations on the validation split.
        log_every: Steps between log lines.
    """

    seed: int = 0
    family: str = "qwen2_5_vl"
    start_from: str | None = None
    layers: int = 4
    rope_theta: float = 1_000_000.0
    tower_blocks: int | None = None
    tower_steps: int = 1600
    tower_batch: int = 160
    variants: int = 12
    phases: tuple[Phase, ...] = field(default_factory=tuple)
    videos: int = 16
    questions: int = 8
    muon_learning_rate: float = 0.02
    adam_learning_rate: float = 3e-3
    warmup: int = 50
    checkpoint_every: int = 200
    evaluate_every: int = 500
    log_every: int = 50

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {self.family!r}")
        if self.layers < 3:
            raise ValueError(f"layers must be at least 3, got {self.layers}")
        if self.tower_blocks is not None and self.tower_blocks < 2:
            raise ValueError(f"tower_blocks must be at least 2, got {self.tower_blocks}")


def read_settings(path: Path) -> TrainSettings:
    """Read a recipe.

    Raises:
        ValueError: If a key is unknown or a value does not fit; the message names it.
    """
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    phases = tuple(Phase(**{**phase, "kinds": tuple(phase.get("kinds", ()))}) for phase in values.pop("phases"))
    known = [item.name for item in fields(TrainSettings)]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{path}: unknown options {', '.join(unknown)}; known are {', '.join(known)}")
    return TrainSettings(**values, phases=phases)
