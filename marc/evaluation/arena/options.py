"""What competes in the arena, at which costs, on which videos."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from marc.compression.config import CompressionConfig
from marc.compression.rivals.rule import RULES
from marc.options import OptionError
from marc.types import VISION_MARKS
from marc.world.options import BLIND, WorldOptions

EVERY_TOKEN = "full"
OURS = ("details", "events")
"""This package's layouts, which are told where events begin; the best one first, against which others are compared."""
CONTESTANTS = (*OURS, *(f"{name}{BLIND}" for name in OURS), "frames", *(name for name in RULES if name not in OURS))
"""Layouts, the published merge and rules."""
PARTS = ("1/128", "1/32", "1/10", "1/4")
"""Of what a video costs in the prompt without compression."""


@dataclass(frozen=True)
class ArenaOptions:
    """What is compared.

    Attributes:
        world: Videos and questions of each of the seeds; its seed is the first one.
        seeds: How many times other videos.
        contestants: Of `CONTESTANTS`.
        parts: Budgets, as parts of what every token costs.
        style: Prompt style of `marc.data.prompts`; ``None``: the model's own.
        every_token: Whether every token is asked, too.

    Raises:
        ValueError: If there is no such contestant or part.
    """

    world: WorldOptions
    seeds: int = 3
    contestants: tuple[str, ...] = CONTESTANTS
    parts: tuple[str, ...] = PARTS
    style: str | None = None
    every_token: bool = True

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise OptionError("seeds", f"must be at least 1, got {self.seeds}")
        for name, given, known in (("rule", self.contestants, CONTESTANTS), ("part", self.parts, None)):
            if not given or len(set(given)) < len(given):
                raise OptionError(name, f"needs different ones, at least one, got {', '.join(given)}")
            if unknown := [each for each in given if known is not None and each not in known]:
                raise OptionError(name, f"must be of {', '.join(CONTESTANTS)}, got {', '.join(unknown)}")
        for part in self.parts:
            fraction_of(part)

    @property
    def entries(self) -> list[tuple[str, str]]:
        """Contestant and part of everything that is asked, every token first."""
        whole = [(EVERY_TOKEN, "1")] if self.every_token else []
        return [*whole, *((name, part) for part in self.parts for name in self.contestants)]


def allowed(part: str, whole: float) -> float:
    """Tokens in the prompt that a part of every token's pays for: at least one visual one and the marks around it."""
    return max(1 + VISION_MARKS, whole * float(fraction_of(part)))


def fraction_of(part: str) -> Fraction:
    """A part of every token as a number.

    Raises:
        ValueError: If it is none between 0 and 1.
    """
    try:
        fraction = Fraction(part)
    except (ValueError, ZeroDivisionError):
        fraction = Fraction(0)
    if not 0 < fraction <= 1:
        raise OptionError("part", f"must be a fraction between 0 and 1 such as 1/32, got {part!r}")
    return fraction


def compression_of(name: str, prompt_tokens: int, cells: int, base: CompressionConfig) -> CompressionConfig:
    """How a contestant compresses a video that may cost so many tokens in the prompt.

    A rule that cannot keep so few keeps its fewest: what it took is shown beside what was asked for.

    Args:
        name: Of `CONTESTANTS`, or every token.
        prompt_tokens: Visual tokens and the marks around them.
        cells: Of one temporal grid, of which the published merge keeps whole ones where it can.
        base: Every other option.
    """
    own = {**base.to_dict(), "tower_layer": None, "tokens_per_event": None, "prompt_tokens": None}
    if name == EVERY_TOKEN:
        return CompressionConfig.from_dict({**own, "target_frames": None})
    visual = max(1, prompt_tokens - VISION_MARKS)
    budget = {"target_frames": max(1, visual // cells), "visual_tokens": visual}
    return CompressionConfig.from_dict({**own, **budget, "layout": name.removesuffix(BLIND)})
