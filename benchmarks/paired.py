"""Medians, spreads and paired ratios of repeated measurements.

Settings are measured in turn, again and again, so that what slows the machine down for a while slows all of them: the
ratio of two settings is taken repeat by repeat. Intervals are those of order statistics: they hold for the median of
any distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.9


@dataclass(frozen=True)
class Spread:
    """A median and what lies around it.

    Attributes:
        median: The median.
        low: Lower end of the interval of the median.
        high: Its upper end.
        n: Number of values.
    """

    median: float
    low: float
    high: float
    n: int

    @property
    def relative(self) -> float:
        """Half the interval as a part of the median; 0 for nothing."""
        return (self.high - self.low) / (2 * self.median) if self.median else 0.0


def spread(values: Sequence[float]) -> Spread:
    """Median with its distribution-free interval.

    The interval runs from the k-th smallest to the k-th largest value, with the largest k for which it holds the
    median with probability ``LEVEL``: ``1 - 2 P[Binomial(n, 1/2) < k]``. With fewer than 5 values it is their range,
    which holds it less often.

    Args:
        values: At least one.
    """
    assert values
    ordered = sorted(values)
    k = order_of_interval(len(ordered))
    return Spread(float(np.median(ordered)), ordered[k - 1], ordered[-k], len(ordered))


def order_of_interval(n: int) -> int:
    """The largest k of `spread`, at least 1."""
    below, k = 0.0, 0
    while True:
        below += math.comb(n, k) / 2**n
        if 1 - 2 * below < LEVEL or k + 1 > (n + 1) // 2:
            return max(k, 1)
        k += 1


def ratios(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """How many times faster the second is, repeat by repeat.

    Args:
        slow: Seconds of each repeat.
        fast: Seconds of the other in the same repeats.
    """
    return spread([one / other for one, other in zip(slow, fast, strict=True)])
