"""Which videos of the micro-world, and how many questions about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from marc.options import Limits, check
from marc.world.scenes import Level

BLIND = " blind"
"""Behind a layout: it is not told where events begin."""


@dataclass(frozen=True)
class WorldOptions:
    """Which videos of the micro-world, and how many questions about them.

    Attributes:
        level: How difficult.
        seed: Another seed makes other videos.
        videos: Number of videos.
        questions: Questions about each.
    """

    level: Level = "easy"
    seed: int = 0
    videos: Annotated[int, Limits(least=1)] = 100
    questions: Annotated[int, Limits(least=1)] = 20

    def __post_init__(self) -> None:
        check(self)
