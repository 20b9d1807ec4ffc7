import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from marc.evaluation.statistics import (
    compare_paired,
    compare_paired_macro,
    estimate,
    estimate_macro,
    sign_flip_p_value,
)


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
    result = estimate_macro([[1.0] * 90, [0.0] * 10], [range(90), range(10)])
    assert result.mean == 0.5 and result.n == 100 and result.low == result.high == 0.5


def test_a_task_without_scores_leaves_no_macro_mean():
    result = estimate_macro([[1.0] * 90, []], [range(90), []])
    assert math.isnan(result.mean) and math.isnan(result.low) and result.n == 90
    pair = compare_paired_macro([[1.0], []], [[0.0], []], [["a"], []])
    assert math.isnan(pair.difference.mean) and math.isnan(pair.p_value) and pair.only_first == 1


def test_nothing_has_no_mean():
    assert math.isnan(estimate([], []).mean)


def test_paired_comparison():
    pair = compare_paired([1, 0, 0, 0.5], [1, 1, 1, 0.0], ["a", "b", "c", "d"])
    assert pair.difference.mean == pytest.approx(0.375)
    assert (pair.only_first, pair.only_second, pair.p_value) == (0, 2, 0.5)


def test_paired_difference_is_that_of_macro_means():
    first, second = [[1, 1, 0, 0], [1.0]], [[1, 1, 1, 0], [0.0]]
    clusters = [["a", "a", "b", "b"], ["c"]]
    pair = compare_paired_macro(first, second, clusters, [1, 0.5])
    before, after = (estimate_macro(scores, clusters, [1, 0.5]).mean for scores in (first, second))
    assert pair.difference.mean == pytest.approx(after - before) and pair.difference.n == 5
    assert (pair.only_first, pair.only_second, pair.p_value) == (1, 1, 1.0)


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 4))
def test_sign_flips_of_one_question_per_video_are_mcnemars_test(b, c, same):
    first, second = [1] * b + [0] * c + [1] * same, [0] * b + [1] * c + [1] * same
    pair = compare_paired(first, second, range(b + c + same))
    exact = binomtest(b, b + c).pvalue if b + c else 1.0
    assert b + c + same == 0 or pair.p_value == pytest.approx(exact)


def test_sign_flips_are_all_tried_where_there_are_few_videos():
    parts = np.array([0.5, -0.2, 0.3, 0.1, 0.7, 0.0])
    sums = [abs(np.dot(signs, parts)) for signs in itertools.product((-1, 1), repeat=len(parts))]
    expected = np.mean([each >= abs(parts.sum()) - 1e-9 for each in sums])
    assert sign_flip_p_value(parts) == pytest.approx(expected)


def test_questions_that_change_together_are_no_evidence_for_themselves():
    """Each video moves as a whole, in either direction: McNemar's test of the questions rejects in a quarter."""
    generator = np.random.default_rng(1)
    rejected = 0
    for _ in range(200):
        likely = 0.5 + generator.choice([-0.125, 0.125], (60, 1))
        first, second = (generator.random((60, 18)) < rate for rate in (likely, 1 - likely))
        rejected += sign_flip_p_value(second.mean(1) - first.mean(1)) < 0.05
    assert rejected <= 20
