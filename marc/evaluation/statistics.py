"""Intervals and paired tests for scores that come in clusters: the questions about one video are not independent.

All intervals are percentile bootstraps over *videos*, not questions; a headline that averages over tasks is resampled
as a whole. Deterministic: the resampling is seeded.

Shapes: B resamples, C clusters (videos), G components that a headline averages; ``...`` stands for B or nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marc.extras import extra

RESAMPLES = 2000
LEVEL = 0.95
_NUMBERS_AT_ONCE = 1 << 23


@dataclass(frozen=True)
class Estimate:
    """A mean with its bootstrap interval.

    Attributes:
        mean: The mean; NaN without samples, or where a component of it has none.
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
        difference: Average of the second run's scores minus the first's, with its interval.
        only_first: Samples that only the first run has right (scores of exactly 0 and 1 only).
        only_second: Samples that only the second run has right.
        p_value: Two-sided sign-flip permutation test of ``difference`` over the clusters; NaN where that is.
    """

    difference: Estimate
    only_first: int
    only_second: int
    p_value: float


def estimate(scores: Sequence[float], clusters: Sequence[Hashable]) -> Estimate:
    """Mean of the scores with an interval over the clusters."""
    return estimate_macro([scores], [clusters])


def estimate_macro(
    components: Sequence[Sequence[float]],
    clusters: Sequence[Sequence[Hashable]],
    weights: Sequence[float] | None = None,
) -> Estimate:
    """Mean over components of each component's mean score, resampled together.

    Args:
        components: The scores of each component, such as a task; one without scores leaves no mean.
        clusters: The cluster of each score; one cluster may occur in several components.
        weights: What each component's mean counts; all the same by default.
    """
    n = sum(map(len, components))
    if not all(map(len, components)) or not n:
        return Estimate(math.nan, math.nan, math.nan, n)
    sums_GC, counts_GC = _by_cluster(components, clusters)
    average = partial(_mean_of_means, weights_G=np.ones(len(components)) if weights is None else np.asarray(weights))
    low, high = percentile_interval((*sums_GC, *counts_GC), average, paired=True)
    return Estimate(float(average(*sums_GC, *counts_GC)), low, high, n)


def _by_cluster(
    components: Sequence[Sequence[float]], clusters: Sequence[Sequence[Hashable]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of each component's scores in each cluster, ``[G, C]``."""
    position: dict[Hashable, int] = {}
    for names in clusters:
        for name in names:
            position.setdefault(name, len(position))
    sums_GC = np.zeros((len(components), len(position)))
    counts_GC = np.zeros_like(sums_GC)
    for component, (scores, names) in enumerate(zip(components, clusters, strict=True)):
        places = [position[name] for name in names]
        np.add.at(sums_GC[component], places, np.asarray(scores, dtype=np.float64))
        np.add.at(counts_GC[component], places, 1.0)
    return sums_GC, counts_GC


def _mean_of_means(
    *sums_then_counts: NDArray[np.float64], weights_G: NDArray[np.float64], axis: int = -1
) -> NDArray[np.float64]:
    """Weighted mean over components of sum / count; one of which a resample drew no score is left out of that.

    Args:
        sums_then_counts: G arrays ``[..., C]`` of sums, then G of counts.
        weights_G: What each component counts.
        axis: That of the clusters.
    """
    totals = np.stack([part.sum(axis) for part in sums_then_counts])
    sums_G, counts_G = np.split(totals, 2)
    present_G = counts_G > 0
    means_G = np.divide(sums_G, counts_G, out=np.zeros_like(sums_G), where=present_G)
    weighed_G = present_G * weights_G.reshape(-1, *[1] * (present_G.ndim - 1))
    total = weighed_G.sum(0)
    return np.divide((means_G * weighed_G).sum(0), total, out=np.zeros_like(total), where=total > 0)


def percentile_interval(
    observations: Sequence[ArrayLike],
    statistic: Callable[..., NDArray[np.float64]],
    *,
    paired: bool = False,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """The seeded percentile bootstrap of `scipy.stats.bootstrap` at ``LEVEL``.

    Args:
        observations: One-dimensional samples, each drawn anew with replacement.
        statistic: Takes them as ``[..., n]``, and ``axis``; must not change when every observation is given twice.
        paired: Whether the samples are of equal length and drawn together.
        resamples: How many times to draw.
    """
    with extra("eval"):
        from scipy.stats import bootstrap

    # scipy refuses one observation alone, which is its own resample; so is the same one twice.
    samples = [np.repeat(sample, 2) if len(sample) == 1 else sample for sample in map(np.asarray, observations)]
    interval = bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        batch=max(1, _NUMBERS_AT_ONCE // sum(map(len, samples))),
        vectorized=True,
        paired=paired,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def compare_paired(first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable]) -> PairedComparison:
    """Compares two runs' means on the same samples.

    Args:
        first: Scores of the first run.
        second: Scores of the second run on the same samples, in the same order.
        clusters: The video of each sample.
    """
    return compare_paired_macro([first], [second], [clusters])


def compare_paired_macro(
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    clusters: Sequence[Sequence[Hashable]],
    weights: Sequence[float] | None = None,
) -> PairedComparison:
    """Compares two runs' means over components, as in `estimate_macro`, on the same samples.

    Args:
        first: Scores of the first run by component.
        second: Scores of the second run on the same samples, in the same order.
        clusters: The video of each sample.
        weights: What each component's mean counts; all the same by default.
    """
    pairs = [list(zip(before, after, strict=True)) for before, after in zip(first, second, strict=True)]
    differences = [[after - before for before, after in part] for part in pairs]
    difference = estimate_macro(differences, clusters, weights)
    p_value = math.nan
    if not math.isnan(difference.mean):
        sums_GC, counts_GC = _by_cluster(differences, clusters)
        weights_G = np.ones(len(pairs)) if weights is None else np.asarray(weights)
        p_value = sign_flip_p_value(weights_G @ (sums_GC / counts_GC.sum(1, keepdims=True)))
    return PairedComparison(
        difference,
        sum(pair == (1, 0) for part in pairs for pair in part),
        sum(pair == (0, 1) for part in pairs for pair in part),
        p_value,
    )


def sign_flip_p_value(parts_C: NDArray[np.float64]) -> float:
    """Two-sided permutation test of a sum against 0: were the runs alike, each cluster's part could have either sign.

    Exact where there are few clusters, otherwise of ``RESAMPLES`` seeded draws.

    Args:
        parts_C: What each cluster adds to the difference of the runs.
    """
    with extra("eval"):
        from scipy.stats import permutation_test

    parts_C = parts_C[parts_C != 0]
    if len(parts_C) < 2:
        return 1.0
    result = permutation_test(
        (parts_C / np.abs(parts_C).sum(),),
        lambda flipped, axis: np.abs(flipped.sum(axis)).round(9),  # what is equal but for rounding ties
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        alternative="greater",
        batch=max(1, _NUMBERS_AT_ONCE // (2 * len(parts_C))),
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)
