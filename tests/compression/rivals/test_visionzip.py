"""VisionZip against its description."""

import torch
from hypothesis import given, settings
from random_videos import random_video
from rival_cases import best, cases, cosine, level

from marc.compression.rivals.rule import RULES


def of_grid(tokens, attention, keys, count):
    """Place of each token that is kept, and the token."""
    cells = len(tokens)
    contextual = round(count * 10 / 64)
    dominant = best(dict(enumerate(attention)), count - contextual)
    kept = {cell: tokens[cell] for cell in dominant}
    rest = [cell for cell in range(cells) if cell not in dominant]
    targets = rest[:: max(1, len(rest) // max(1, contextual))][:contextual]
    members = {target: [] for target in targets}
    for cell in rest:
        if contextual and cell not in targets:
            members[max(targets, key=lambda target: cosine(keys[cell], keys[target]))].append(tokens[cell])
    for target in targets:
        kept[target] = tokens[target] + (sum(members[target]) / len(members[target]) if members[target] else 0)
    return sorted(kept.items())


@given(case=cases("visionzip"))
@settings(max_examples=30, deadline=None)
def test_dominant_and_contextual_tokens(case):
    video, count = case
    grids, cells, _ = video.tokens.shape
    expected = []
    for grid, own in enumerate(level(count, grids)):
        parts = of_grid(video.tokens[grid].numpy(), video.attention[grid].tolist(), video.keys[grid].numpy(), own)
        expected += [(grid * cells + cell, torch.from_numpy(token)) for cell, token in parts]
    kept = RULES["visionzip"].keep(video, count)
    assert kept.places.tolist() == [place for place, _ in expected]
    assert torch.allclose(kept.tokens, torch.stack([token for _, token in expected]), atol=1e-6)


def test_ten_of_sixty_four_are_contextual():
    video = random_video(1, 12, 12, 4, seed=0)
    kept = RULES["visionzip"].keep(video, 64)
    as_they_are = (kept.tokens == video.tokens.flatten(0, 1)[kept.places]).all(1)
    assert as_they_are.sum() == 54
    strongest = video.attention[0].argsort(descending=True)[:54].sort().values
    assert torch.equal(kept.places[as_they_are], strongest)
