"""What bare answers are worth: counted by hand."""

import math

import numpy as np
import pytest

from benchmarks.bare_answers import Asked, ranking


@pytest.mark.parametrize(("least", "tokens"), [(0, 3), (0.1, 3), (0.15, 13), (0.3, 12), (0.6, 11), (1.01, 11)])
def test_a_bare_answer_is_paid_for_up_to_where_it_is_too_improbable(least, tokens):
    halves = Asked(True, True, [math.log(0.55), math.log(0.5), math.log(0.5)], 10)
    assert halves.cost(least) == tokens


def test_a_ranking_is_the_share_of_pairs_in_order():
    scores, is_right = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    assert ranking(scores, is_right) == (1 + 1 + 0.5 + 1) / 4
