"""VidCom2 against its equations."""

import numpy as np
import torch
from hypothesis import assume, given, settings
from random_videos import random_video
from rival_cases import cases

from marc.compression.rivals.rule import RULES, EncodedVideo


def similarity(token: np.ndarray, centre: np.ndarray) -> float:
    return sum(np.exp(-np.sum((token - centre) ** 2) / (2 * 2.0**k)) for k in range(-3, 2))


def places_kept(tokens: np.ndarray, count: int) -> list[int]:
    grids, cells, channels = tokens.shape
    variances = tokens.reshape(-1, channels).var(0)
    quiet = np.argsort(variances)[: max(1, channels // 2)]
    tokens = tokens[..., quiet] / np.linalg.norm(tokens[..., quiet], axis=-1, keepdims=True)
    to_video = np.array([[similarity(token, tokens.mean((0, 1))) for token in grid] for grid in tokens])
    to_grid = np.array([[similarity(token, grid.mean(0)) for token in grid] for grid in tokens])
    score = to_video + to_grid
    unusual = np.exp((-to_video.mean(1) + to_video.mean(1).min()) / 0.01)
    unusual /= unusual.sum()
    chosen = set()
    for grid in range(grids):
        own = min(1, count / (grids * cells) * (1 + unusual[grid] - 1 / grids)) * cells
        for cell in np.argsort(score[grid])[: min(cells, max(1, round(own)))]:
            chosen.add(int(grid * cells + cell))
    flat = score.flatten()
    while len(chosen) > count:
        chosen.remove(max(chosen, key=lambda place: flat[place]))
    while len(chosen) < count:
        chosen.add(min(set(range(grids * cells)) - chosen, key=lambda place: flat[place]))
    return sorted(chosen)


@given(case=cases("vidcom2"))
@settings(max_examples=30, deadline=None)
def test_the_cells_that_are_least_like_the_rest_are_kept(case):
    video, count = case
    assume(video.tokens.shape[0] * video.tokens.shape[1] > 2)  # two are equally far from their mean
    kept = RULES["vidcom2"].keep(video, count)
    assert kept.places.tolist() == places_kept(video.tokens.numpy(), count)
    assert torch.equal(kept.tokens, video.tokens.flatten(0, 1)[kept.places])


def test_an_unusual_grid_keeps_more():
    tokens = 1 + 0.3 * random_video(1, 3, 4, 32, seed=0).tokens.repeat(8, 1, 1)
    tokens[5] -= 2
    kept = RULES["vidcom2"].keep(EncodedVideo(tokens, (3, 4), [0] * 8), 27)
    assert torch.bincount(kept.places // 12).tolist() == [3, 3, 3, 3, 3, 6, 3, 3]
