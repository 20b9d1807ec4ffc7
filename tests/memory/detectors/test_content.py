from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from marc.memory.detectors.content import JumpFinder, jumping_frames

HEIGHT, WIDTH = 27, 48


def picture(seed: int) -> NDArray[np.float64]:
    """Coarse blocks ``[27, 48, 3]`` of one palette."""
    blocks = np.random.default_rng(seed).uniform(60, 160, (HEIGHT // 3, WIDTH // 3, 3))
    return blocks.repeat(3, axis=0).repeat(3, axis=1)


def film(*frames: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Frames ``[T, 27, 48, 3]`` with some noise."""
    clean = np.stack(frames)
    return np.clip(clean + np.random.default_rng(0).normal(0, 1, clean.shape), 0, 255).astype(np.uint8)


def still(seed: int, length: int) -> list[NDArray[np.float64]]:
    return [picture(seed)] * length


def found(rgb: NDArray[np.uint8]) -> list[int]:
    return np.flatnonzero(jumping_frames(rgb)).tolist()


def test_a_cut_is_a_jump_also_seven_frames_after_another():
    assert found(film(*still(0, 30), *still(1, 7), *still(2, 30))) == [29, 36]


def test_the_ends_of_a_video_are_no_jumps():
    assert found(film(*still(0, 3))) == []
    assert found(film(*still(0, 2), *still(1, 9))) == [1], "but a cut near them is"


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_flash_comes_back(length: int):
    light = [picture(0) * 0.2 + 200] * length
    assert found(film(*still(0, 20), *light, *still(0, 20))) == []


def test_another_light_keeps_the_pattern_even_if_it_stays():
    assert found(film(*still(0, 20), *[picture(0) * 1.5] * 20)) == []


def test_a_moving_camera_steps_again_and_again():
    wide = np.concatenate([picture(seed) for seed in range(12)], axis=1)
    pan = [wide[:, 9 * shift : 9 * shift + WIDTH] for shift in range(50)]
    assert found(film(*still(0, 10), *pan)) == []


def test_a_cut_out_of_a_moving_camera_must_stand_out():
    wide = np.concatenate([picture(seed) for seed in range(12)], axis=1)
    pan = [wide[:, shift // 2 : shift // 2 + WIDTH] for shift in range(30)]
    assert found(film(*pan, *still(20, 30))) == [29]


def test_black_bars_do_not_make_two_pictures_alike():
    rgb = film(*still(0, 20), *still(1, 20))
    rgb[:, :, :12] = rgb[:, :, -12:] = 0
    grey = rgb[[19, 20]].mean(axis=3).reshape(2, -1)
    assert np.corrcoef(grey)[0, 1] > 0.75, "they do, if they are counted"
    assert found(rgb) == [19]


def test_small_changes_are_no_jumps():
    changed = picture(0)
    changed[6:12, 6:12] += 60
    assert found(film(*still(0, 20), *[changed] * 20)) == []


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    batch=st.integers(1, 40),
    skipped=st.integers(0, 5),
)
def test_frames_in_batches_are_judged_as_the_whole_video(lengths: list[int], batch: int, skipped: int):
    shots = [picture_of for seed, length in enumerate(lengths) for picture_of in still(seed, length)]
    rgb = film(*shots)
    padded = np.concatenate([rgb[:1].repeat(9, axis=0), rgb, rgb[-1:].repeat(9, axis=0)])
    expected = jumping_frames(padded)[9 : 9 + len(rgb)].tolist()
    finder = JumpFinder()
    for _ in range(2):
        for first in range(0, len(rgb), batch):
            finder.add(rgb[first : first + batch])
        finder.skip(skipped)
    assert finder.jumps().tolist() == 2 * (expected + [False] * skipped)
