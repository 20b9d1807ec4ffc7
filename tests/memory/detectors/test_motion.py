from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from marc.memory.detectors.motion import common_part
from marc.memory.detectors.windows import CHANGED, DRIFT, HEIGHT, SPIKE, WIDTH, changing_frames

SCALE = 8
"""Pixels of a scene for one of a picture: a camera moves by parts of these."""


@lru_cache
def scene(seed: int) -> NDArray[np.float32]:
    """A place three pictures wide and high whose detail is the paler the smaller it is, as in nature (1/f)."""
    rows, columns = 3 * HEIGHT * SCALE, 3 * WIDTH * SCALE
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None])[..., None]
    spectrum = np.fft.rfft2(np.random.default_rng(seed).standard_normal((rows, columns, 3)), axes=(0, 1))
    wide = np.fft.irfft2(spectrum / np.maximum(frequency, 4 / columns), s=(rows, columns), axes=(0, 1))
    return np.clip(128 + 45 * wide / wide.std(), 0, 255).astype(np.float32)


def shot(wide: NDArray[np.float32], down: float, right: float) -> NDArray[np.uint8]:
    """What a camera shows that has moved from the middle by so many pixels of its picture."""
    top, left = round((HEIGHT + down) * SCALE), round((WIDTH + right) * SCALE)
    part = wide[top : top + HEIGHT * SCALE, left : left + WIDTH * SCALE]
    return part.reshape(HEIGHT, SCALE, WIDTH, SCALE, 3).mean(axis=(1, 3)).round().astype(np.uint8)


@given(st.integers(0, 20), st.floats(-3, 3), st.floats(-6, 6))
def test_nothing_else_is_seen_by_a_camera_that_moves(seed: int, down: float, right: float):
    wide = scene(seed)
    common = common_part(shot(wide, 0, 0), shot(wide, down, right), 0.7)
    assert common is not None and common.coarse_difference < CHANGED / 2
    assert common.share == pytest.approx((1 - abs(down) / HEIGHT) * (1 - abs(right) / WIDTH), abs=0.03)


@given(st.integers(0, 20), st.floats(0.4, 1))
def test_another_place_that_shines_through_is_a_difference_however_it_is_moved(seed: int, share: float):
    here, there = shot(scene(seed), 0, 0), shot(scene(seed + 1), 0, 0)
    mixed = (here * (1 - share) + there * share).astype(np.uint8)
    common = common_part(here, mixed, 0.7)
    assert common is None or common.coarse_difference > CHANGED


def test_a_change_of_light_is_what_it_is():
    """By hand: everything becomes lighter by 10."""
    here = np.clip(shot(scene(1), 0, 0), 0, 240)
    lighter, same = common_part(here, here + np.uint8(10), 0.7), common_part(here, here, 0.7)
    assert lighter is not None and same is not None
    assert (lighter.difference, lighter.coarse_difference) == pytest.approx((10, 10), abs=1e-3)
    assert same.difference == same.coarse_difference == 0


@pytest.mark.parametrize("seed", range(5))
def test_too_little_is_left_of_a_fast_pan(seed: int):
    wide = scene(seed)
    common = common_part(shot(wide, 0, 0), shot(wide, 0, 0.4 * WIDTH), 0.7)
    assert common is None or common.coarse_difference > 2 * CHANGED


def test_the_network_need_not_look_at_a_pan_but_at_a_dissolve_in_it():
    first, second = scene(1), scene(2)
    pan = np.stack([shot(first, 0, 0.4 * frame) for frame in range(90)])
    blocks = pan[16:].astype(float).mean(axis=-1) - pan[:-16].astype(float).mean(axis=-1)
    assert np.abs(blocks).mean() > DRIFT, "it does drift"
    assert not changing_frames(pan).any()
    weight = np.clip((np.arange(90) - 30) / 30, 0, 1)[:, None, None, None]
    other = np.stack([shot(second, 0, 0.4 * frame) for frame in range(90)])
    assert changing_frames((pan * (1 - weight) + other * weight).astype(np.uint8))[32:58].all()


def test_the_network_need_not_look_at_a_camera_that_shakes():
    wide, rng = scene(4), np.random.default_rng(0)
    path_T2 = rng.normal(0, 0.3, (90, 2)) + np.arange(90)[:, None] * [0, 0.1]
    shaken = np.stack([shot(wide, down, right) for down, right in path_T2])
    steps = np.abs(np.diff(shaken.astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert steps.max() > 2 * SPIKE + np.median(steps), "it does jump"
    assert not changing_frames(shaken).any()
    shaken[40:] = shot(wide, 0, 0.4 * WIDTH)
    assert changing_frames(shaken)[39], "a cut to another view of the place"


@pytest.mark.parametrize("share", [0.02, 0.04, 0.06, 0.08])
def test_a_cut_from_a_camera_that_stands_to_another_view_is_looked_at(share: float):
    wide = scene(5)
    views = [np.repeat(shot(wide, 0, right)[None], 40, axis=0) for right in (0, share * WIDTH)]
    assert changing_frames(np.concatenate(views))[39]


def test_a_page_that_is_turned_is_looked_at():
    """Its text covers as much of each block as before."""
    rng = np.random.default_rng(0)
    pages = np.where(rng.random((2, 1, HEIGHT, WIDTH, 1)) < 0.15, 120, 240).repeat(3, axis=-1).repeat(30, axis=1)
    assert changing_frames(pages.reshape(60, HEIGHT, WIDTH, 3).astype(np.uint8))[29]


def test_frames_at_the_margin_are_not_judged():
    frames = np.concatenate([np.repeat(shot(scene(seed), 0, 0)[None], 30, axis=0) for seed in (1, 2)])
    np.testing.assert_array_equal(changing_frames(frames, 11), changing_frames(frames)[11:-11])
