"""Density peaks against their definition."""

import numpy as np
import rival_cases
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marc.compression.rivals.clustering import density_peaks


@given(points=st.integers(1, 40), seed=st.integers(0, 10_000), neighbours=st.integers(1, 8), data=st.data())
@settings(max_examples=80, deadline=None)
def test_dense_points_far_from_denser_ones(points, seed, neighbours, data):
    values = np.random.default_rng(seed).normal(size=(points, 4))
    count = data.draw(st.integers(1, points))
    peaks, distance = density_peaks(torch.from_numpy(values), count, neighbours)
    assert peaks.tolist() == rival_cases.density_peaks(values, count, neighbours)
    assert np.allclose(distance[0], np.linalg.norm(values - values[0], axis=1) / 2, atol=1e-7)


def test_of_equal_points_one_is_a_peak():
    values = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).repeat(5, 1)
    peaks, _ = density_peaks(values, 3, 4)
    assert peaks.tolist() == [0, 1, 2]
