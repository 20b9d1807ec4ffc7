"""Mixed budgets: steps draw how much of their videos the model sees, so that one set of weights serves all budgets.

A budget's name is ``full`` (every token), ``LAYOUT`` or ``LAYOUT-N`` with N the frames that it costs: ``events``,
``events-4``, ``frames-1``, ``frames-2``. A draw follows from the seed and the number of the step alone: it is the same
on every process and after a resume.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite

from marc.compression.config import Layout
from marc.model import CompressionConfig

_NAME = re.compile(r"(events|frames)(?:-([1-9]\d*))?")


def budget(name: str, base: CompressionConfig) -> CompressionConfig:
    """The compression that a name stands for.

    Args:
        name: See the module's docstring.
        base: Gives every other option.

    Raises:
        ValueError: If the name is not one of a budget.
    """
    if name == "full":
        return replace(base, target_frames=None)
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"unknown budget {name!r}: it must be full, events, frames, or events-N or frames-N")
    layout: Layout = "events" if match[1] == "events" else "frames"
    return replace(base, layout=layout, target_frames=int(match[2] or 1), visual_tokens=None)


@dataclass(frozen=True)
class BudgetMix:
    """A distribution over budgets.

    Attributes:
        shares: Weight of each budget by its name; they need not sum to 1. Empty: always the model's own budget.
    """

    shares: Mapping[str, float]

    def __post_init__(self) -> None:
        for name, share in self.shares.items():
            budget(name, CompressionConfig())
            if not isfinite(share) or share < 0:
                raise ValueError(f"the share of the budget {name!r} must be a number of at least 0, got {share}")
        if self.shares and sum(self.shares.values()) <= 0:
            raise ValueError(f"the shares of the budgets sum to 0: {dict(self.shares)}")

    def draw(self, seed: int, step: int, base: CompressionConfig) -> tuple[str, CompressionConfig]:
        """The budget of a step: its name, and what it stands for.

        Args:
            seed: Of the run.
            step: Number of the optimizer step.
            base: The model's own compression.
        """
        if not self.shares:
            return "model", base
        names, weights = zip(*self.shares.items(), strict=True)
        (name,) = random.Random(f"budget/{seed}/{step}").choices(names, weights)
        return name, budget(name, base)

    def all(self, base: CompressionConfig) -> list[CompressionConfig]:
        """Every budget that may be drawn, and the model's own."""
        return [base, *(budget(name, base) for name in self.shares)]
