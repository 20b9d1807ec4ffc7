"""PruMerge against its equations."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from random_videos import random_video
from rival_cases import best, cases, cosine

from marc.compression.rivals.rule import RULES


def of_grid(tokens, attention, keys, count):
    """Place of each token that is kept, and the token."""
    cells = len(tokens)
    with_rest = 1 < count < cells
    centres = best(dict(enumerate(attention)), count - with_rest)
    kept = {}
    for centre in centres:
        likeness = {cell: cosine(keys[centre], keys[cell]) for cell in range(cells) if cell != centre}
        near = best(likeness, min(32, cells - 1))
        kept[centre] = tokens[centre] + sum((attention[cell] * tokens[cell] for cell in near), 0 * tokens[0])
    if with_rest:
        rest = [cell for cell in range(cells) if cell not in centres]
        kept[max(rest, key=lambda cell: attention[cell])] = sum(attention[cell] * tokens[cell] for cell in rest)
    return sorted(kept.items())


def outliers(attention) -> int:
    first, third = np.percentile(attention, [25, 75])
    return int((attention > third + 1.5 * (third - first)).sum())


@given(case=cases("prumerge"))
@settings(max_examples=30, deadline=None)
def test_outliers_with_what_is_similar_and_the_rest(case):
    video, count = case
    grids, cells, _ = video.tokens.shape
    kept = RULES["prumerge"].keep(video, count)
    numbers = torch.bincount(kept.places // cells, minlength=grids).tolist()
    attention = (video.attention / video.attention.sum(1, keepdim=True)).double().numpy()
    expected = []
    for grid, own in enumerate(numbers):
        parts = of_grid(video.tokens[grid].numpy(), attention[grid], video.keys[grid].numpy(), own)
        expected += [(grid * cells + cell, torch.from_numpy(token)) for cell, token in parts]
    assert kept.places.tolist() == [place for place, _ in expected]
    assert torch.allclose(kept.tokens, torch.stack([token for _, token in expected]), atol=1e-6)


@given(case=cases("prumerge"))
@settings(max_examples=30, deadline=None)
def test_no_grid_has_more_than_another_that_has_more_outliers(case):
    video, count = case
    grids, cells, _ = video.tokens.shape
    kept = RULES["prumerge"].keep(video, count)
    numbers = torch.bincount(kept.places // cells, minlength=grids).tolist()
    found = [outliers(row) for row in video.attention.double().numpy()]
    for one in range(grids):
        for other in range(grids):
            assert found[one] <= found[other] or numbers[one] >= min(numbers[other] - 1, cells)


def test_a_grid_with_outliers_has_the_tokens_of_others():
    video = random_video(3, 4, 5, 6, seed=0)
    attention = torch.linspace(1, 2, 20).repeat(3, 1)
    attention[1, [3, 8, 11]] = 50.0
    kept = RULES["prumerge"].keep(replace(video, attention=attention), 6)
    assert torch.bincount(kept.places // 20).tolist() == [1, 4, 1]
    assert {23, 28, 31} <= set(kept.places.tolist())
