from __future__ import annotations

from pathlib import Path

import numpy as np

from marc.memory.descriptors import BlockDescriptors, block_means
from marc.video import EveryFrame, read_to


def test_descriptors_tell_the_shots_apart(three_shots: Path):
    blocks = BlockDescriptors(EveryFrame(48, 27, batch=33))
    assert len(blocks.descriptors) == 0
    read_to(three_shots, [blocks])
    found = blocks.descriptors
    np.testing.assert_allclose(found.seconds, [0, 1, 2, 3, 4, 5], atol=1e-6)
    difference = np.abs(np.diff(found.vectors.astype(int), axis=0)).mean(axis=1)
    assert (difference[[1, 3]] > 10).all(), "the cuts lie between seconds 1 and 2, and 3 and 4"
    assert (difference[[0, 2, 4]] < 2).all()


def test_block_means_leave_out_the_rest():
    frames = np.arange(5 * 7, dtype=np.float64).reshape(1, 5, 7, 1)
    np.testing.assert_allclose(block_means(frames, 2, 3)[0, ..., 0], [[4, 6, 8], [18, 20, 22]])
