from __future__ import annotations

import av
import numpy as np
import pytest

from marc.video.likeness import HEIGHT, WIDTH, Glancer, are_still, likeness, show_other_place, show_same_place


def scene(seed: int) -> np.ndarray:
    """A large picture of blocks of several sizes, with 8 x 8 pixels for each of a glance."""
    rng = np.random.default_rng(seed)
    picture = sum(
        rng.uniform(-50, 50, (2048 // size, 2048 // size, 3)).repeat(size, axis=0).repeat(size, axis=1)
        for size in (256, 128, 64, 32)
    )
    return np.clip(128 + picture, 0, 255).astype(np.uint8)


def seen(picture: np.ndarray, down: int = 0, right: int = 0):
    top, left = 272 + 8 * down, 272 + 8 * right
    crop = np.ascontiguousarray(picture[top : top + 8 * HEIGHT, left : left + 8 * WIDTH])
    return Glancer()(av.VideoFrame.from_ndarray(crop, format="rgb24"))


def test_a_picture_is_like_itself_under_noise():
    noisy = np.clip(scene(0) + np.random.default_rng(1).normal(0, 8, (2048, 2048, 3)), 0, 255).astype(np.uint8)
    found = likeness(seen(scene(0)), seen(noisy))
    assert found.shift == (0, 0)
    assert (found.overlap, found.alike) == (1, 1)
    assert are_still(seen(scene(0)), seen(noisy))


@pytest.mark.parametrize("shift", [(5, 0), (0, -20), (-12, 25)])
def test_a_camera_that_has_moved_shows_the_same_place(shift: tuple[int, int]):
    found = likeness(seen(scene(0)), seen(scene(0), *shift))
    assert found.shift == (-shift[0], -shift[1])
    assert found.alike > 0.9
    assert found.overlap == pytest.approx((1 - abs(shift[0]) / HEIGHT) * (1 - abs(shift[1]) / WIDTH))


def test_something_that_moves_in_front_leaves_the_rest_alike():
    picture = scene(0)
    picture[500:700, 500:800] = (200, 30, 30)
    found = likeness(seen(scene(0)), seen(picture))
    assert 0.6 < found.alike < 0.98
    assert not are_still(seen(scene(0)), seen(picture))
    assert show_same_place(seen(scene(0)), seen(picture))


def test_another_place_and_plain_pictures_are_not_alike():
    assert likeness(seen(scene(0)), seen(scene(1))).alike < 0.2
    black, white = (np.full((2048, 2048, 3), level, np.uint8) for level in (0, 255))
    assert likeness(seen(black), seen(white)).alike == 0
    assert are_still(seen(black), seen(black))
    assert not show_other_place(seen(black), seen(white)), "they show too little to tell"
    assert show_other_place(seen(scene(0)), seen(scene(1)))
    assert likeness(seen(scene(0)), seen(black)).alike < 0.2
