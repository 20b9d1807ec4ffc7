import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marc.evaluation.statistics import compare_paired, estimate, estimate_macro, mcnemar_p_value


def test_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        scores = (generator.random(120) < 0.3).astype(float)
        result = estimate(scores, range(120))
        covered += result.low <= 0.3 <= result.high
    assert 180 <= covered <= 199


def test_questions_of_one_video_are_not_independent():
    scores = [1.0] * 40 + [0.0] * 60
    apart = estimate(scores, range(100))
    together = estimate(scores, [i // 10 for i in range(100)])
    assert apart.mean == together.mean == 0.4
    assert together.high - together.low > 2.5 * (apart.high - apart.low)


def test_the_normal_approximation_agrees_on_many_samples():
    scores = [1.0, 0.0, 0.0, 0.0] * 500
    result = estimate(scores, range(2000))
    half = 1.96 * math.sqrt(0.25 * 0.75 / 2000)
    assert result.low == pytest.approx(0.25 - half, abs=0.003) and result.high == pytest.approx(0.25 + half, abs=0.003)


def test_macro_mean_weighs_tasks_equally():
    result = estimate_macro([[1.0] * 90, [0.0] * 10, []], [range(90), range(10), []])
    assert result.mean == 0.5 and result.n == 100 and result.low == result.high == 0.5


def test_nothing_has_no_mean():
    assert math.isnan(estimate([], []).mean)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(b, c):
    n = b + c
    tail = sum(math.comb(n, k) for k in range(min(b, c) + 1)) / 2**n
    assert mcnemar_p_value(b, c) == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_on_large_counts_does_not_overflow():
    assert mcnemar_p_value(3000, 3000) == 1.0
    assert 0 < mcnemar_p_value(5000, 4500) < 1e-6


def test_paired_comparison():
    pair = compare_paired([1, 0, 0, 0.5], [1, 1, 1, 0.0], ["a", "b", "c", "d"])
    assert pair.difference.mean == pytest.approx(0.375)
    assert (pair.only_first, pair.only_second, pair.p_value) == (0, 2, 0.5)
