"""Weighted sums, pooling and counts that are shared out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_videos import random_video

from marc.compression.cells import fit_cells, token_count
from marc.compression.merge import compress_planned
from marc.compression.plan import VideoPlan, Window
from marc.compression.rivals.merging import Sums, evenly, fill, largest_remainder, pooled, weighted_sums


def test_sums_stand_in_order_and_weigh_what_they_are_told():
    video = random_video(2, 1, 3, 4, seed=0)
    parts = [
        Sums(torch.tensor([5, 1]), torch.tensor([0, 4, 4]), torch.tensor([1, 0, 1]), torch.tensor([0.25, 2.0, 0.5])),
        Sums.unchanged(torch.tensor([3])),
    ]
    kept = weighted_sums(video, parts)
    tokens = video.tokens.flatten(0, 1)
    assert kept.places.tolist() == [1, 3, 5]
    assert torch.allclose(kept.tokens, torch.stack([0.25 * tokens[0] + 0.5 * tokens[4], tokens[3], 2 * tokens[4]]))
    assert torch.equal(kept.tokens[1], tokens[3])


def test_sums_are_taken_in_float32():
    video = random_video(64, 1, 1, 4, seed=0, dtype=torch.bfloat16)
    everything = torch.arange(64)
    kept = weighted_sums(
        video, [Sums(torch.tensor([0]), everything, torch.zeros_like(everything), torch.full((64,), 1 / 64))]
    )
    assert kept.tokens.dtype == torch.bfloat16
    assert torch.equal(kept.tokens[0], video.tokens.float().mean((0, 1)).bfloat16())


@given(count=st.integers(1, 20), size=st.tuples(st.integers(1, 5), st.integers(1, 4)))
def test_pooling_is_that_of_the_layouts(count, size):
    cells = size[0] * size[1]
    count = min(count, cells)
    video = random_video(1, *size, 3, seed=1, dtype=torch.float64)
    division = fit_cells(size, count)
    plan = VideoPlan(1, size, (Window(0, 1, 1),), (division,), "weighted")
    kept = pooled(video, [0], [count])
    assert token_count(division) == len(kept.places) == len(set(kept.places.tolist()))
    theirs = compress_planned(video.tokens[None], plan)[0].flat
    assert torch.allclose(kept.tokens.sort(0).values, theirs.sort(0).values)


@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=9), data=st.data())
def test_counts_in_proportion(sizes, data):
    count = data.draw(st.integers(0, sum(sizes)))
    if sum(sizes) == 0:
        return
    parts = largest_remainder(sizes, count)
    assert sum(parts) == count
    for part, size in zip(parts, sizes, strict=True):
        assert part <= size
        assert abs(part - count * size / sum(sizes)) < 1


@given(room=st.lists(st.integers(0, 30), max_size=9), total=st.integers(0, 200))
def test_filling_gives_all_there_is_room_for_and_as_equally_as_that_allows(room, total):
    given_out = fill(total, room)
    assert sum(given_out) == min(total, sum(room))
    for one, own in enumerate(given_out):
        assert own <= room[one]
        for other, more in enumerate(given_out):
            assert more <= own + 1 or own == room[one], (one, other)


def test_the_first_are_filled_with_one_more():
    assert fill(8, [9, 9, 9]) == [3, 3, 2]
    assert fill(8, [1, 9, 9]) == [1, 4, 3]


@pytest.mark.parametrize(("count", "total", "expected"), [(1, 5, [2]), (2, 8, [2, 6]), (3, 3, [0, 1, 2])])
def test_evenly(count, total, expected):
    assert evenly(count, total) == expected
