"""Intervals against what is known of them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.ablation.intervals import over_seeds_and_videos


def test_the_mean_counts_every_question_once():
    values = np.array([[[1.0, np.nan], [0.0, 1.0]], [[1.0, np.nan], [1.0, 1.0]]])
    assert np.isclose(over_seeds_and_videos(values).mean, 5 / 6)


def test_what_does_not_vary_has_no_interval():
    same = over_seeds_and_videos(np.full((3, 5, 4), 0.25))
    assert same.mean == same.low == same.high == 0.25


def test_seeds_and_videos_both_widen_the_interval():
    """Against the analytic standard error of independent seed and video effects."""
    rng = np.random.default_rng(0)
    videos = np.broadcast_to(rng.normal(0, 0.2, (1, 100, 1)), (20, 100, 3))
    seeds = np.broadcast_to(rng.normal(0, 0.1, (20, 1, 1)), (20, 100, 3))

    def width(values: np.ndarray) -> float:
        interval = over_seeds_and_videos(values)
        return (interval.high - interval.low) / 2 / 1.96

    assert np.isclose(width(videos), videos.std() / 10, rtol=0.1)
    assert np.isclose(width(seeds), seeds.std() / 20**0.5, rtol=0.15)
    assert np.isclose(width(videos + seeds), np.hypot(width(videos), width(seeds)), rtol=0.1)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_mean_lies_inside(seeds: int, videos: int, seed: int):
    values = np.random.default_rng(seed).integers(0, 2, (seeds, videos, 4)).astype(float)
    interval = over_seeds_and_videos(values)
    assert interval.low - 1e-9 <= interval.mean <= interval.high + 1e-9
