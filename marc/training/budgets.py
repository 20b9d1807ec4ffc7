"""Mixed budgets: steps draw how much of their videos the model sees, so that one set of weights serves all budgets.

Budgets have the names of `marc.compression.config`: ``full``, ``events:4``, ``frames:1``, ``tokens:64``. Training of
the tower draws likewise where its grids merge. A draw follows from the seed and the number of the step alone: it is
the same on every process and after a resume.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite

from marc.compression.config import CompressionConfig, Schedule, parse_budget
from marc.options import build


@dataclass(frozen=True)
class BudgetMix:
    """A distribution over budgets.

    Attributes:
        shares: Weight of each budget by its name; they need not sum to 1. Empty: always the model's own budget.
    """

    shares: Mapping[str, float]

    def __post_init__(self) -> None:
        for name in self.shares:
            parse_budget(name, CompressionConfig())
        _check_shares(self.shares, "budget")

    def draw(self, seed: int, step: int, base: CompressionConfig) -> tuple[str, CompressionConfig]:
        """The budget of a step: its name, and what it stands for.

        Args:
            seed: Of the run.
            step: Number of the optimizer step.
            base: The model's own compression.
        """
        if not self.shares:
            return "model", base
        name = _draw(self.shares, f"budget/{seed}/{step}")
        return name, parse_budget(name, base)

    def drawn(self, base: CompressionConfig) -> list[CompressionConfig]:
        """Every budget that may be drawn."""
        return [parse_budget(name, base) for name, share in self.shares.items() if share > 0] or [base]

    def all(self, base: CompressionConfig) -> list[CompressionConfig]:
        """Every budget that is named, and the model's own."""
        return [base, *(parse_budget(name, base) for name in self.shares)]


@dataclass(frozen=True)
class LayerMix:
    """A distribution over the places at which grids merge inside the vision tower.

    Attributes:
        shares: Weight of each place by its name, a value of `CompressionConfig.tower_layer` as it is typed: ``8``,
            ``4:16,8:4`` or ``none``; they need not sum to 1.

    Raises:
        ValueError: If a name is no such value, or a share no weight.
    """

    shares: Mapping[str, float]

    def __post_init__(self) -> None:
        for name in self.shares:
            self.at(name, CompressionConfig())
        _check_shares(self.shares, "place")

    @classmethod
    def of(cls, layer: int | Schedule) -> LayerMix:
        """One place in three of four steps, and none in the others."""
        name = str(layer) if isinstance(layer, int) else ",".join(f"{blocks}:{grids}" for blocks, grids in layer)
        return cls({name: 0.75, "none": 0.25})

    @property
    def drawn(self) -> list[str]:
        """The names of all places that may be drawn."""
        return [name for name, share in self.shares.items() if share > 0]

    def draw(self, seed: int, step: int) -> str:
        """The name of a step's place, see `BudgetMix.draw`."""
        return _draw(self.shares, f"tower/{seed}/{step}")

    def at(self, name: str, base: CompressionConfig) -> CompressionConfig:
        """A compression that merges at a place."""
        layer = build(CompressionConfig, {"tower_layer": name}, lambda option: "tower_layers: a place").tower_layer
        return replace(base, tower_layer=layer)


def _check_shares(shares: Mapping[str, float], what: str) -> None:
    for name, share in shares.items():
        if not isfinite(share) or share < 0:
            raise ValueError(f"the share of the {what} {name!r} must be a number of at least 0, got {share}")
    if shares and sum(shares.values()) <= 0:
        raise ValueError(f"the shares of the {what}s sum to 0: {dict(shares)}")


def _draw(shares: Mapping[str, float], key: str) -> str:
    names, weights = zip(*shares.items(), strict=True)
    (name,) = random.Random(key).choices(names, weights)
    return str(name)
