"""Token merging against its description."""

import torch
from hypothesis import given, settings
from random_videos import random_video
from rival_cases import cases, cosine, level

from marc.compression.rivals.rule import RULES, EncodedVideo


def of_grid(tokens, count):
    """Place of each token that is kept, and the cells that it is the mean of."""
    rows = [(cell, [cell]) for cell in range(len(tokens))]
    while len(rows) > count:
        means = [tokens[members].mean(0) for _, members in rows]
        merges = min(len(rows) - count, len(rows) // 2)
        ours, theirs = range(0, len(rows), 2), range(1, len(rows), 2)
        match = {a: max(theirs, key=lambda b: cosine(means[a], means[b])) for a in ours}
        goes = sorted(ours, key=lambda a: -cosine(means[a], means[match[a]]))[:merges]
        for a in goes:
            rows[match[a]][1].extend(rows[a][1])
        rows = [rows[a] for a in ours if a not in goes] + [rows[b] for b in theirs]
    return sorted(rows)


@given(case=cases("tome"))
@settings(max_examples=30, deadline=None)
def test_the_most_similar_of_two_sets_merge(case):
    video, count = case
    tokens = video.tokens.numpy()
    grids, cells, _ = tokens.shape
    expected = []
    for grid, own in enumerate(level(count, grids)):
        expected += [
            (grid * cells + place, tokens[grid][members].mean(0)) for place, members in of_grid(tokens[grid], own)
        ]
    kept = RULES["tome"].keep(video, count)
    assert kept.places.tolist() == [place for place, _ in expected]
    assert torch.allclose(kept.tokens, torch.stack([torch.from_numpy(token) for _, token in expected]))


def test_equal_cells_merge_before_others():
    tokens = random_video(1, 2, 4, 8, seed=0).tokens
    tokens[0, 6] = tokens[0, 1]
    kept = RULES["tome"].keep(EncodedVideo(tokens, (2, 4), [0]), 7)
    assert 6 not in kept.places.tolist()
    assert torch.allclose(kept.tokens[1], tokens[0, 1])


def test_what_a_tower_has_merged_is_not_taken_apart():
    """Two cells are one already, of equal tokens; the next most similar pair joins them."""
    tokens = random_video(2, 2, 4, 8, seed=0).tokens
    standing = torch.arange(8).repeat(2, 1)
    standing[:, 2] = 5
    tokens[:, 2] = tokens[:, 5]
    video = EncodedVideo(tokens, (2, 4), [0, 0], standing=standing)
    kept = RULES["tome"].keep(video, 14)
    assert kept.places.tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15]
    assert torch.equal(kept.tokens, tokens.flatten(0, 1)[kept.places])
    fewer = RULES["tome"].keep(video, 6)
    assert not {2, 10} & set(fewer.places.tolist()) and len(fewer.places) == 6
