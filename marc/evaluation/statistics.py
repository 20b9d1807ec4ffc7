"""Intervals and paired tests for scores that come in clusters: the questions about one video are not independent.

All intervals are percentile bootstraps over *videos*, not questions; a headline that averages over tasks is resampled
as a whole. Deterministic: the resampling is seeded.

Shapes: B resamples, C clusters (videos), G components that a headline averages.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Estimate:
    """A mean with its bootstrap interval.

    Attributes:
        mean: The mean, NaN without samples.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n: Number of samples.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class PairedComparison:
    """How a second run differs from a first one on the samples that both answered.

    Attributes:
        difference: Mean of the second run's scores minus the first's, with its interval.
        only_first: Samples that only the first run has right (scores of exactly 0 and 1 only).
        only_second: Samples that only the second run has right.
        p_value: Exact two-sided McNemar test of ``only_first`` against ``only_second``.
    """

    difference: Estimate
    only_first: int
    only_second: int
    p_value: float


def estimate(scores: Sequence[float], clusters: Sequence[Hashable]) -> Estimate:
    """Mean of the scores with an interval over the clusters."""
    return estimate_macro([scores], [clusters])


def estimate_macro(components: Sequence[Sequence[float]], clusters: Sequence[Sequence[Hashable]]) -> Estimate:
    """Mean over components of each component's mean score, resampled together.

    Args:
        components: The scores of each component, such as a task.
        clusters: The cluster of each score; one cluster may occur in several components.
    """
    filled = [(scores, names) for scores, names in zip(components, clusters, strict=True) if len(scores)]
    if not filled:
        return Estimate(math.nan, math.nan, math.nan, 0)
    position: dict[Hashable, int] = {}
    for _, names in filled:
        for name in names:
            position.setdefault(name, len(position))
    sums_GC = np.zeros((len(filled), len(position)))
    counts_GC = np.zeros_like(sums_GC)
    for component, (scores, names) in enumerate(filled):
        places = [position[name] for name in names]
        np.add.at(sums_GC[component], places, np.asarray(scores, dtype=np.float64))
        np.add.at(counts_GC[component], places, 1.0)
    means_B = _resampled_means(sums_GC, counts_GC)
    mean = float(np.mean(sums_GC.sum(1) / counts_GC.sum(1)))
    low, high = np.quantile(means_B, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(mean, float(low), float(high), sum(len(scores) for scores, _ in filled))


def _resampled_means(sums_GC: NDArray[np.float64], counts_GC: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[B]`` means over the components under resampled clusters; a component that was not drawn is left out."""
    generator = np.random.default_rng(0)
    clusters = sums_GC.shape[1]
    step = max(1, min(RESAMPLES, _CHUNK // clusters))
    parts = []
    for start in range(0, RESAMPLES, step):
        drawn = min(step, RESAMPLES - start)
        weights_BC = generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=drawn).astype(np.float64)
        sums_BG, counts_BG = weights_BC @ sums_GC.T, weights_BC @ counts_GC.T
        present_BG = counts_BG > 0
        means_BG = np.divide(sums_BG, counts_BG, out=np.zeros_like(sums_BG), where=present_BG)
        parts.append(means_BG.sum(1) / np.maximum(present_BG.sum(1), 1))
    return np.concatenate(parts)


def compare_paired(first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable]) -> PairedComparison:
    """Compares two runs on the same samples.

    Args:
        first: Scores of the first run.
        second: Scores of the second run on the same samples, in the same order.
        clusters: The video of each sample.
    """
    assert len(first) == len(second) == len(clusters), (len(first), len(second), len(clusters))
    differences = [b - a for a, b in zip(first, second, strict=True)]
    only_first = sum(a == 1 and b == 0 for a, b in zip(first, second, strict=True))
    only_second = sum(a == 0 and b == 1 for a, b in zip(first, second, strict=True))
    return PairedComparison(
        estimate(differences, clusters), only_first, only_second, mcnemar_p_value(only_first, only_second)
    )


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test: ``min(1, 2 P[X <= min(b, c)])`` with ``X ~ Binomial(b + c, 1/2)``."""
    n, fewer = only_first + only_second, min(only_first, only_second)
    term = tail = 1
    for k in range(1, fewer + 1):
        term = term * (n - k + 1) // k
        tail += term
    return min(1.0, 2 * tail / 2**n)
