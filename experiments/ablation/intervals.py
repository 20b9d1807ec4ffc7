"""Means over repetitions and videos, with intervals over both.

Shapes: S seeds, V videos, Q questions of a video, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marc.evaluation.statistics import percentile_interval

RESAMPLES = 4000


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

    def mean(seeds: NDArray[np.integer], videos: NDArray[np.integer], axis: int = -1) -> NDArray[np.float64]:
        """Mean of the outcomes of every seed drawn with every video drawn, ``[..., S]`` and ``[..., V]``."""
        rows, columns = seeds[..., :, None], videos[..., None, :]
        totals, counts = sums_SV[rows, columns].sum((-2, -1)), counts_SV[rows, columns].sum((-2, -1))
        return totals / np.maximum(counts, 1)

    seeds, videos = map(np.arange, sums_SV.shape)
    low, high = percentile_interval((seeds, videos), mean, resamples=RESAMPLES)
    return Interval(float(mean(seeds, videos)), low, high)
