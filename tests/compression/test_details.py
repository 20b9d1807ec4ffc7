"""Pooled events and the cells that these do not show: against plain loops, and on videos where they are known."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from marc.compression import CompressionConfig, compress
from marc.compression.cells import centers, covered
from marc.compression.details import keep
from marc.compression.plan import plan_video
from marc.compression.rivals.rule import RULES, EncodedVideo

SIZE = (2, 3)


def drawn(events, seed=0, channels=5, size=SIZE) -> EncodedVideo:
    tokens = torch.randn(len(events), size[0] * size[1], channels, generator=torch.Generator().manual_seed(seed))
    return EncodedVideo(tokens, size, events)


def by_loops(video: EncodedVideo, count: int, pooled: float):
    """Tokens and places, one after the other, in no order."""
    grids, cells, _ = video.tokens.shape
    first = min(count, max(len(set(video.events)), round(pooled * count)))
    config = CompressionConfig(visual_tokens=first)
    plan = plan_video(grids, video.size, config, events=video.events)
    merged = compress(video.tokens, config, events=video.events, size=video.size)
    kept, stands_for = [], {}
    for index, (grid, division) in enumerate(zip(merged.grids, plan.cells, strict=True)):
        covers = list(covered(video.size, division))
        for cell, (row, column) in enumerate(centers(video.size, division)):
            kept.append((grid[cell], int(plan.centers[index]) * cells + row * video.size[1] + column))
        for t in range(grids):
            if int(merged.members[t]) == index:
                for p in range(cells):
                    most = [rows[p // video.size[1]] * columns[p % video.size[1]] for rows, columns in covers]
                    stands_for[t, p] = [grid[most.index(max(most))]]
    for _, place in kept:
        del stands_for[place // cells, place % cells]
    while len(kept) < count:
        likeness = {
            place: max(float(F.cosine_similarity(video.tokens[place], other, dim=0)) for other in others)
            for place, others in stands_for.items()
        }
        t, p = min(likeness, key=likeness.get)
        kept.append((video.tokens[t, p], t * cells + p))
        for other, others in stands_for.items():
            if video.events[other[0]] == video.events[t]:
                others.append(video.tokens[t, p])
        del stands_for[t, p]
    return kept


@pytest.mark.parametrize("events", [(0, 0, 0, 1, 1, 2), (0,) * 4, (0, 1, 2)])
@pytest.mark.parametrize("count", [2, 7, 11])
@pytest.mark.parametrize("pooled", [0.25, 0.5])
def test_what_is_kept_is_what_loops_keep(events, count, pooled):
    video = drawn(events, seed=count)
    kept = keep(video, count, pooled)
    expected = sorted(by_loops(video, count, pooled), key=lambda each: each[1])
    assert kept.places.tolist() == [place for _, place in expected]
    torch.testing.assert_close(kept.tokens, torch.stack([token for token, _ in expected]))


def test_a_sign_that_is_there_for_a_while_is_kept_once_in_each_event():
    """Two scenes of a pattern each; a cell of the first is something else in two grids, one of the second in one."""
    tokens = torch.zeros(8, 6, 4)
    tokens[:4, :, 0] = tokens[4:, :, 1] = 1.0
    tokens[1:3, 4] = tokens[6, 2] = torch.tensor([0.0, 0.0, 1.0, 0.0])
    kept = keep(EncodedVideo(tokens, SIZE, (0,) * 4 + (1,) * 4), 4)
    shown = kept.places[kept.tokens[:, 2] > 0.9].tolist()
    assert len(kept.tokens) == 4 and shown in ([10, 38], [16, 38])


@given(data=st.data())
def test_counts_order_and_gradients(data):
    grids = data.draw(st.integers(1, 6))
    events = sorted(data.draw(st.lists(st.integers(0, 3), min_size=grids, max_size=grids)))
    size = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    video = drawn(events, data.draw(st.integers(0, 9)), size=size)
    count = data.draw(st.integers(1, grids * size[0] * size[1]))
    tokens = video.tokens.clone().requires_grad_()
    kept = RULES["details"].keep(EncodedVideo(tokens, size, events), count)
    assert len(kept.tokens) == len(kept.places) == count
    assert (kept.places.diff() > 0).all() and kept.places.min() >= 0 and kept.places.max() < tokens[..., 0].numel()
    kept.tokens.sum().backward()
    torch.testing.assert_close(tokens.grad.sum(), torch.tensor(float(count * tokens.shape[-1])), rtol=1e-4, atol=1e-4)
