"""Means over repetitions and videos, with intervals over both.

Shapes: S seeds, V videos, Q questions of a video, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def over_seeds_and_videos(values_SVQ: NDArray[np.floating]) -> Interval:
    """Percentile bootstrap that draws seeds and videos anew, each with replacement and crossed with the other.

    Questions about one video, and runs on one set of videos, are not independent; this treats neither as if they were.
    Three seeds are few: the interval tells how far these runs vary, not how far all runs would.

    Args:
        values_SVQ: Outcomes, or paired differences of outcomes; NaN where a question does not count.
    """
    sums_SV, counts_SV = np.nansum(values_SVQ, axis=2), (~np.isnan(values_SVQ)).sum(axis=2)
    if not counts_SV.any():
        return Interval(np.nan, np.nan, np.nan)
    seeds, videos = sums_SV.shape
    rng = np.random.default_rng(0)
    weights_RS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
    weights_RV = rng.multinomial(videos, np.full(videos, 1 / videos), size=RESAMPLES)
    totals_R = np.einsum("rs,sv,rv->r", weights_RS, sums_SV, weights_RV, optimize=True)
    counts_R = np.einsum("rs,sv,rv->r", weights_RS, counts_SV.astype(float), weights_RV, optimize=True)
    low, high = np.quantile(totals_R / np.maximum(counts_R, 1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(sums_SV.sum() / counts_SV.sum()), float(low), float(high))
