"""EVS against its equation."""

import numpy as np
import torch
from hypothesis import given, settings
from random_videos import random_video
from rival_cases import best, cases, cosine

from marc.compression.rivals.rule import RULES, EncodedVideo


@given(case=cases("evs"))
@settings(max_examples=30, deadline=None)
def test_the_cells_that_changed_most_are_kept(case):
    video, count = case
    tokens = video.tokens.numpy()
    grids, cells, _ = tokens.shape
    change = dict.fromkeys(range(cells), 255.0)
    for grid in range(1, grids):
        for cell in range(cells):
            change[grid * cells + cell] = 1 - cosine(tokens[grid, cell], tokens[grid - 1, cell])
    kept = RULES["evs"].keep(video, count)
    assert kept.places.tolist() == best(change, count)
    assert np.array_equal(kept.tokens.numpy(), tokens.reshape(-1, tokens.shape[2])[kept.places])


def test_a_repeated_half_is_pruned_first():
    half = random_video(3, 2, 4, 8, seed=0).tokens
    still = half[-1:].repeat(3, 1, 1)
    video = EncodedVideo(torch.cat([half, still]), (2, 4), [0] * 6)
    assert RULES["evs"].keep(video, 24).places.tolist() == list(range(24))
