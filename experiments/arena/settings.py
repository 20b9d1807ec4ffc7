"""The recipe of the arena's model: a curriculum from small videos to those of the level."""

from __future__ import annotations

from dataclasses import dataclass, field

from marc.world.arena.scenes import ArenaLimits

RISE = 50
"""Steps at the beginning of each phase over which its rates rise: what is new in it is learnt without forgetting."""


@dataclass(frozen=True)
class ArenaPhase:
    """A stretch of training.

    Attributes:
        limits: Of its videos.
        steps: Most steps of it.
        videos: Videos of a step.
        questions: Questions packed for each video.
        until: End early once the running accuracy, averaged over the kinds of questions, reaches this.
        rate: Factor on the learning rates.
        final_rate: What the factor falls to, linearly, by the last of `steps`; ``None`` is no fall.
        choices: Probability of a step that asks multiple-choice questions.
        kinds: Kinds of questions; empty is all of them.
    """

    limits: ArenaLimits
    steps: int
    videos: int
    questions: int
    until: float | None = None
    rate: float = 0.3
    final_rate: float | None = None
    choices: float = 0.3
    kinds: tuple[str, ...] = ()

    def rate_at(self, step: int) -> float:
        """The factor on the learning rates at a step of the phase."""
        final = self.rate if self.final_rate is None else self.final_rate
        return min(1.0, (step + 1) / RISE) * (self.rate + (final - self.rate) * step / self.steps)


LOOKED_UP = ("sign", "star", "actor colour", "actor shape", "actor direction", "scene of sign")
"""Kinds of questions that are a description: whose cell is found says the answer. All others are built on that."""
CURRICULUM = (
    ArenaPhase(ArenaLimits(2, 2, 4, 4), steps=700, videos=8, questions=10, until=0.9, choices=0.0, kinds=LOOKED_UP),
    ArenaPhase(ArenaLimits(4, 8, 4, 4), steps=800, videos=4, questions=20, choices=0.0),
    ArenaPhase(ArenaLimits(4, 8, 4, 4), steps=2000, videos=4, questions=20, rate=0.12, until=0.85, choices=0.0),
    ArenaPhase(ArenaLimits(4, 8, 4, 4), steps=1000, videos=4, questions=20, rate=0.12, until=0.88),
    ArenaPhase(ArenaLimits(4, 8, 4, 8), steps=250, videos=3, questions=20, rate=0.12, until=0.9),
    ArenaPhase(ArenaLimits(8, 16, 4, 8), steps=900, videos=6, questions=12, rate=0.12, until=0.89),
    ArenaPhase(ArenaLimits(8, 16, 4, 8), steps=600, videos=6, questions=12, rate=0.05, until=0.9),
    ArenaPhase(ArenaLimits(rows=4, columns=8), steps=450, videos=6, questions=12, rate=0.05, until=0.9),
    ArenaPhase(ArenaLimits(), steps=320, videos=3, questions=20, rate=0.05, final_rate=0.0),
)


@dataclass(frozen=True)
class ArenaSettings:
    """The recipe.

    Attributes:
        seed: Seed of everything.
        layers: Of the language model.
        tower_blocks: Of the vision tower; two are begun as the embedded model's, others with random weights.
        tower_steps: Steps in which the tower learns to tell what is there.
        word_steps: Steps in which it learns to say that in words.
        tower_cells: Cells of a step of both.
        phases: The language model's curriculum.
        muon_learning_rate: Peak, for matrices.
        adam_learning_rate: Peak, for everything else.
        warmup: Steps over which the rates rise once more in the very beginning.
        checkpoint_every: Steps between checkpoints, of the tower and of the language model.
        evaluate_every: Steps between evaluations on the validation split.
        log_every: Steps between log lines.
    """

    seed: int = 0
    layers: int = 6
    tower_blocks: int = 2
    tower_steps: int = 6000
    word_steps: int = 2500
    tower_cells: int = 768
    phases: tuple[ArenaPhase, ...] = field(default=CURRICULUM)
    muon_learning_rate: float = 0.02
    adam_learning_rate: float = 3e-3
    warmup: int = 50
    checkpoint_every: int = 50
    evaluate_every: int = 250
    log_every: int = 25
