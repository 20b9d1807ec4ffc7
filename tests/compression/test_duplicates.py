"""Near-duplicates: the rule itself, and that encoding them once changes nothing but the cost."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marc.compression.duplicates import distinct_grids, grid_distance
from marc.model import CompressionConfig


def test_distance_is_the_mean_over_the_patch_that_differs_most():
    a = torch.zeros(3, 4)
    b = a.clone()
    b[1] = torch.tensor([1.0, -1.0, 2.0, 0.0])
    b[2] = 0.5
    assert grid_distance(a, b) == 1.0


@settings(max_examples=50)
@given(st.integers(1, 12), st.floats(0, 2), st.integers(0, 2**16))
def test_every_grid_is_near_the_one_that_stands_for_it(frames, threshold, seed):
    generator = torch.Generator().manual_seed(seed)
    grids_TPC = torch.randn(frames, 10, 3, generator=generator).cumsum(0) * 0.2
    numbers = distinct_grids(grids_TPC, threshold)
    firsts = [numbers.index(number) for number in numbers]
    assert numbers[0] == 0
    assert all(later - earlier in (0, 1) for earlier, later in itertools.pairwise(numbers))
    assert all(grid_distance(grids_TPC[t], grids_TPC[first]) <= threshold for t, first in enumerate(firsts))
    begins = [t for t, first in enumerate(firsts) if t == first and t > 0]
    assert all(grid_distance(grids_TPC[t], grids_TPC[firsts[t - 1]]) > threshold for t in begins)


def test_a_cursor_on_a_still_picture_is_seen():
    grids_TPC = torch.randn(1, 100, 12).repeat(4, 1, 1)
    grids_TPC[2:, 37] += 0.5
    assert distinct_grids(grids_TPC, 0.4) == [0, 0, 1, 1]


@pytest.mark.parametrize("value", [True, -0.1, float("inf"), float("nan"), "few"])
def test_a_wrong_distance_is_named(value):
    with pytest.raises(ValueError, match=r"compression\.duplicates must be a number"):
        CompressionConfig(duplicates=value)


def test_a_slow_pan_does_not_drift_away():
    grids_TPC = torch.arange(10.0)[:, None, None].expand(10, 4, 3) * 0.1
    assert distinct_grids(grids_TPC, 0.25) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]


@pytest.mark.parametrize("value", [-1, "near", [0]])
def test_a_wrong_threshold_is_named(value):
    with pytest.raises(ValueError, match=r"compression\.duplicates must be"):
        CompressionConfig(duplicates=value)
