"""Intervals of medians hold the median as often as they say; ratios are taken pair by pair."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.paired import LEVEL, order_of_interval, ratios, spread

SECONDS = st.floats(1e-3, 1e3)


def coverage(n: int, k: int) -> float:
    return 1 - 2 * sum(math.comb(n, below) for below in range(k)) / 2**n


@pytest.mark.parametrize("n", range(5, 40))
def test_the_interval_holds_enough_and_no_narrower_one_does(n: int):
    k = order_of_interval(n)
    assert coverage(n, k) >= LEVEL
    assert coverage(n, k + 1) < LEVEL or k + 1 > (n + 1) // 2


def test_it_holds_the_median_of_a_skewed_distribution():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        interval = spread(rng.exponential(size=9).tolist())
        held += interval.low <= math.log(2) <= interval.high
    assert held / 1000 == pytest.approx(coverage(9, order_of_interval(9)), abs=0.03)


@given(st.lists(SECONDS, min_size=1, max_size=12))
def test_a_spread_is_ordered_and_of_the_values(values: list[float]):
    found = spread(values)
    assert found.low <= found.median <= found.high
    assert {found.low, found.high} <= set(values)
    assert found.median == pytest.approx(np.median(values))


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=9), st.floats(1.5, 10))
def test_what_slows_both_down_leaves_the_ratio(pairs: list[tuple[float, float]], load: float):
    """A disturbance that hits both members of a pair does not move the ratio, whatever the repeat."""
    slow, fast = [3 * one for one, _ in pairs], [one for one, _ in pairs]
    slow[0], fast[0] = slow[0] * load, fast[0] * load
    assert ratios(slow, fast).low == pytest.approx(3)
    assert ratios(slow, fast).high == pytest.approx(3)
