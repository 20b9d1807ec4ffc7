"""DyCoke's temporal merging against its description."""

import math

import torch
from hypothesis import given, settings
from random_videos import random_video
from rival_cases import best, cases, cosine, level

from marc.compression.rivals.rule import RULES, EncodedVideo


@given(case=cases("dycoke"))
@settings(max_examples=30, deadline=None)
def test_windows_keep_one_grid_and_what_changed(case):
    video, count = case
    tokens = video.tokens.numpy()
    grids, cells, _ = tokens.shape
    window = 4
    while math.ceil(grids / window) * cells > count:
        window += 1
    pairs = {}
    expected = []
    for start in range(0, grids, window):
        expected += [start * cells + cell for cell in range(cells)]
        for grid in range(start + 1, min(start + window, grids)):
            pairs[grid] = start if (grid - start) % 2 == 0 else grid - 1
    left = level(count - len(expected), len(pairs)) if pairs else []
    for (grid, earlier), own in zip(sorted(pairs.items()), left, strict=True):
        unlike = {cell: -cosine(tokens[grid, cell], tokens[earlier, cell]) for cell in range(cells)}
        expected += [grid * cells + cell for cell in best(unlike, own)]
    kept = RULES["dycoke"].keep(video, count)
    assert kept.places.tolist() == sorted(expected)
    assert torch.equal(kept.tokens, video.tokens.flatten(0, 1)[kept.places])


def test_in_a_window_of_four_the_third_is_compared_with_the_first():
    tokens = random_video(4, 2, 3, 8, seed=2).tokens
    tokens[2] = tokens[0]
    tokens[2, 4] = -tokens[2, 4]
    kept = RULES["dycoke"].keep(EncodedVideo(tokens, (2, 3), [0] * 4), 9)
    assert [place for place in kept.places.tolist() if place // 6 == 2] == [2 * 6 + 4]


def test_still_cells_are_dropped():
    tokens = random_video(1, 2, 3, 8, seed=2).tokens.repeat(8, 1, 1)
    tokens[5:, 3] = torch.randn(8, generator=torch.Generator().manual_seed(0))
    kept = RULES["dycoke"].keep(EncodedVideo(tokens, (2, 3), [0] * 8), 12 + 6)
    assert 5 * 6 + 3 in kept.places.tolist()


def test_a_small_count_makes_the_windows_longer():
    tokens = random_video(9, 3, 3, 8, seed=2).tokens
    tokens[7] = tokens[5]
    tokens[7, 4] = -tokens[7, 4]
    places = RULES["dycoke"].keep(EncodedVideo(tokens, (3, 3), [0] * 9), 2 * 9 + 7).places.tolist()
    assert set(range(9)) | set(range(45, 54)) <= set(places), "windows of five grids"
    assert [place for place in places if place // 9 == 7] == [7 * 9 + 4], "the third of a window, against its first"
