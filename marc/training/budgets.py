"""Mixed budgets: steps draw how much of their videos the model sees, so that one set of weights serves all budgets.

Budgets have the names of `marc.compression.config`: ``full``, ``events:4``, ``frames:1``, ``tokens:64``. A draw
follows from the seed and the number of the step alone: it is the same on every process and after a resume.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from marc.compression.config import CompressionConfig, parse_budget


@dataclass(frozen=True)
class BudgetMix:
    """A distribution over budgets.

    Attributes:
        shares: Weight of each budget by its name; they need not sum to 1. Empty: always the model's own budget.
    """

    shares: Mapping[str, float]

    def __post_init__(self) -> None:
        for name, share in self.shares.items():
            parse_budget(name, CompressionConfig())
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
        return name, parse_budget(name, base)

    def all(self, base: CompressionConfig) -> list[CompressionConfig]:
        """Every budget that may be drawn, and the model's own."""
        return [base, *(parse_budget(name, base) for name in self.shares)]
