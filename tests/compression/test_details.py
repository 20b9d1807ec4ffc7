"""Typical cells and unusual ones: against plain loops, and on videos where they are known."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from marc.compression import CompressionConfig, compress
from marc.compression.cells import covered
from marc.compression.details import CHANNELS, choose, keep, stretches
from marc.compression.merge import compress_videos
from marc.compression.plan import plan_video
from marc.compression.rivals.rule import RULES, EncodedVideo

SIZE = (2, 3)


def drawn(events, seed=0, channels=5, size=SIZE) -> EncodedVideo:
    tokens = torch.randn(len(events), size[0] * size[1], channels, generator=torch.Generator().manual_seed(seed))
    return EncodedVideo(tokens, size, events)


def cosine(a, b):
    return float(F.cosine_similarity(a, b, dim=0))


def by_loops(video: EncodedVideo, count: int) -> tuple[list[int], list[int]]:
    """Places of anchors and of details, one after the other."""
    grids, cells, _ = video.tokens.shape
    first = min(count, max(len(set(video.events)), round(0.5 * count)))
    parts, config = stretches(video.events, first), CompressionConfig(visual_tokens=first)
    plan = plan_video(grids, video.size, config, events=parts)
    merged = compress(video.tokens, config, events=parts, size=video.size)
    regions = {}
    for index, (grid, division) in enumerate(zip(merged.grids, plan.cells, strict=True)):
        covers = list(covered(video.size, division))
        for place in range(grids * cells):
            if int(merged.members[place // cells]) == index:
                row, column = divmod(place % cells, video.size[1])
                most = [rows[row] * columns[column] for rows, columns in covers]
                cell = most.index(max(most))
                regions.setdefault((index, cell), (grid[cell], []))[1].append(place)
    flat = video.tokens.flatten(0, 1)
    stands_for, anchors = {}, []
    for _, (mean, places) in sorted(regions.items()):
        anchors.append(max(places, key=lambda place: cosine(flat[place], mean)))
        stands_for.update({place: [flat[anchors[-1]]] for place in places})
    details = []
    event_of = [event for event in video.events for _ in range(cells)]
    for place in anchors:
        for other, others in stands_for.items():
            if event_of[other] == event_of[place]:
                others.append(flat[place])
    while len(anchors) + len(details) < count:
        left = [place for place in stands_for if place not in anchors + details]
        place = min(left, key=lambda one: max(cosine(flat[one], other) for other in stands_for[one]))
        details.append(place)
        for other, others in stands_for.items():
            if event_of[other] == event_of[place]:
                others.append(flat[place])
    return anchors, details


@pytest.mark.parametrize("events", [(0, 0, 0, 1, 1, 2), (0,) * 4, (0, 1, 2)])
@pytest.mark.parametrize("count", [1, 2, 7, 11, 15])
def test_what_is_kept_is_what_loops_keep(events, count):
    video = drawn(events, seed=count)
    anchors, details = by_loops(video, count)
    choice = choose(video, count)
    assert (choice.anchors.tolist(), choice.details.tolist()) == (anchors, details)
    kept = keep(video, count)
    assert kept.places.tolist() == sorted(anchors + details)
    assert torch.equal(kept.tokens, video.tokens.flatten(0, 1)[kept.places])


def test_cells_are_compared_in_some_of_their_channels():
    """What differs in the others alone is alike."""
    wide = torch.zeros(2, 6, 4 * CHANNELS)
    narrow = drawn((0, 0), channels=CHANNELS).tokens
    wide[..., ::4] = narrow
    wide[..., 1::4] = torch.randn(2, 6, CHANNELS, generator=torch.Generator().manual_seed(1))
    expected = choose(EncodedVideo(narrow, SIZE, (0, 0)), 5)
    choice = choose(EncodedVideo(wide, SIZE, (0, 0)), 5)
    assert torch.equal(choice.anchors, expected.anchors) and torch.equal(choice.details, expected.details)


@pytest.mark.parametrize(
    ("events", "count", "expected"),
    [
        ((0, 0, 0, 0, 0, 1, 1, 2), 4, [0, 0, 0, 1, 1, 2, 2, 3]),
        ((0, 0, 0, 0, 0, 1, 1, 2), 2, [0, 0, 0, 0, 0, 1, 1, 2]),
        ((3, 3, 5), 9, [0, 1, 2]),
    ],
)
def test_events_are_cut_into_even_stretches_the_longest_first(events, count, expected):
    assert stretches(events, count) == expected


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


@given(data=st.data())
def test_events_that_have_shares_are_treated_one_by_one(data):
    lengths = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    shares = [data.draw(st.integers(1, length * 6)) for length in lengths]
    events = [event for event, length in enumerate(lengths) for _ in range(length)]
    video = drawn(events, data.draw(st.integers(0, 9)))
    kept = RULES["details"].keep(replace(video, shares=shares), sum(shares))
    expected, first = [], 0
    for length, share in zip(lengths, shares, strict=True):
        own = EncodedVideo(video.tokens[first : first + length], SIZE, [0] * length)
        expected += [first * 6 + place for place in RULES["details"].keep(own, share).places.tolist()]
        first += length
    assert kept.places.tolist() == sorted(expected)
    assert torch.equal(kept.tokens, video.tokens.flatten(0, 1)[kept.places])


def test_a_plan_gives_events_their_shares_as_far_as_they_have_cells():
    config = CompressionConfig(layout="details", visual_tokens=20)
    plan = plan_video(4, SIZE, config, events=[0, 1, 1, 2], shares=[1, 10, 9])
    assert plan.shares == (2, 12, 6) and plan.tokens == 20
    assert plan_video(4, SIZE, config, events=[0, 1, 1, 2], shares=[1, 10, 9], limit=(9, 4)).shares == (1, 4, 4)
    assert plan_video(4, SIZE, config, events=[0, 1, 1, 2], shares=[1, 10, 9], limit=(2, 4)).shares is None
    assert plan_video(4, SIZE, config, events=[0, 1, 1, 2]).shares is None
    with pytest.raises(ValueError, match="above the budget of 20"):
        plan_video(4, SIZE, config, events=[0, 1, 1, 2], shares=[1, 10, 10])
    assert plan_video(4, SIZE, replace(config, layout="random"), events=[0, 1, 1, 2], shares=[9, 9, 9]).shares is None


def test_what_is_kept_follows_the_shares_of_the_plan():
    video = drawn((0, 1, 1, 2), 3)
    config = CompressionConfig(layout="details", visual_tokens=20)
    plan = plan_video(4, SIZE, config, events=video.events, shares=[1, 10, 2])
    (kept,) = compress_videos([video.tokens], [plan])
    owners = [video.events[place // 6] for place in kept.places.tolist()]
    assert [owners.count(event) for event in range(3)] == [1, 10, 2]
