"""HoliTom against its equations."""

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_videos import random_video
from rival_cases import best, cases, cosine, density_peaks, rounded

from marc.compression.rivals.holitom import _division
from marc.compression.rivals.rule import RULES, EncodedVideo


def saved(still, start: int, end: int) -> int:
    """Tokens that a window saves, from its first grid to its last."""
    return (end - start) * sum(all(still[grid][cell] for grid in range(start, end)) for cell in range(len(still[0])))


def windows(still, grids: int) -> list[tuple[int, int]]:
    """The dynamic programme, window by window."""
    best_saved, first = {-1: 0}, {}
    for end in range(grids):
        best_saved[end], first[end] = best_saved[end - 1], end
        for start in range(end - 1, -1, -1):
            if best_saved[start - 1] + saved(still, start, end) > best_saved[end]:
                best_saved[end], first[end] = best_saved[start - 1] + saved(still, start, end), start
    found, end = [], grids - 1
    while end >= 0:
        found.insert(0, (first[end], end))
        end = first[end] - 1
    return found


def clusters(tokens, cells: list[int], start: int, end: int, count: int) -> list[tuple[int, np.ndarray]]:
    """Cell and token of each peak of the still cells of a window."""
    means = np.array([tokens[start : end + 1, cell].mean(0) for cell in cells])
    peaks = density_peaks(means, count, min(7, count))
    members = {peak: [] for peak in peaks}
    for point in range(len(cells)):
        if point not in peaks:
            members[min(peaks, key=lambda peak: np.linalg.norm(means[point] - means[peak]))].append(means[point])
    return [
        (cells[peak], 0.6 * means[peak] + 0.4 * np.mean(members[peak], axis=0) if members[peak] else means[peak])
        for peak in peaks
    ]


def kept_by_hand(tokens, attention, count: int) -> dict[int, np.ndarray]:
    grids, cells, _ = tokens.shape
    likeness = [
        [cosine(tokens[grid, cell], tokens[grid + 1, cell]) for cell in range(cells)] for grid in range(grids - 1)
    ]
    for threshold in [0.8, *sorted(value for row in likeness for value in row if value > 0.8)]:
        still = [[value > threshold for value in row] for row in likeness]
        found = windows(still, grids)
        if grids * cells - sum(saved(still, *window) for window in found if window[0] < window[1]) >= count:
            break
    parts = []
    for start, end in found:
        cells_still = [c for c in range(cells) if start < end and all(still[g][c] for g in range(start, end))]
        parts.append((start, end, cells_still, True))
    for start, end, cells_still, _ in list(parts):
        moving = [cell for cell in range(cells) if cell not in cells_still]
        parts += [(grid, grid, moving, False) for grid in range(start, end + 1)]
    left = sum(len(part[2]) for part in parts)
    kept = {}
    for (start, end, some, is_still), own in zip(
        parts, rounded([len(p[2]) * count / left for p in parts]), strict=True
    ):
        if is_still and own:
            kept |= {start * cells + cell: token for cell, token in clusters(tokens, some, start, end, own)}
        elif own:
            chosen = best({cell: attention[start, cell] for cell in some}, own)
            kept |= {start * cells + cell: tokens[start, cell] for cell in chosen}
    return kept


@given(case=cases("holitom", most_grids=7))
@settings(max_examples=40, deadline=None)
def test_still_cells_merge_over_windows_and_each_part_is_reduced(case):
    video, count = case
    expected = kept_by_hand(video.tokens.numpy(), video.attention.numpy(), count)
    kept = RULES["holitom"].keep(video, count)
    assert sorted(expected) == kept.places.tolist()
    for place, token in zip(kept.places.tolist(), kept.tokens, strict=True):
        assert np.allclose(expected[place], token.numpy(), atol=1e-6)


@given(grids=st.integers(1, 8), cells=st.integers(1, 4), data=st.data())
@settings(max_examples=30, deadline=None)
def test_no_division_saves_more(grids, cells, data):
    flags = data.draw(st.lists(st.booleans(), min_size=(grids - 1) * cells, max_size=(grids - 1) * cells))
    still = np.array(flags, dtype=bool).reshape(grids - 1, cells)
    starts, total = _division(torch.from_numpy(still))
    most = 0
    for cuts in itertools.product([False, True], repeat=grids - 1):
        edges = [0, *(grid + 1 for grid, cut in enumerate(cuts) if cut), grids]
        spans = [(start, end - 1) for start, end in itertools.pairwise(edges) if end - start > 1]
        most = max(most, sum(saved(still.tolist(), *span) for span in spans))
    assert total == most
    ours = [(start, end - 1) for start, end in itertools.pairwise([*starts, grids]) if end - start > 1]
    assert sum(saved(still.tolist(), *span) for span in ours) == most


def test_a_still_video_is_one_window():
    tokens = random_video(1, 3, 4, 16, seed=0).tokens.repeat(6, 1, 1)
    video = EncodedVideo(tokens, (3, 4), [0] * 6, torch.rand(6, 12, generator=torch.Generator().manual_seed(0)))
    kept = RULES["holitom"].keep(video, 12)
    assert kept.places.tolist() == list(range(12))
    assert torch.allclose(kept.tokens, tokens[0])


def test_a_budget_above_what_stillness_leaves_is_met():
    tokens = random_video(1, 3, 4, 16, seed=0).tokens.repeat(6, 1, 1)
    tokens += 0.05 * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(1))
    video = EncodedVideo(tokens, (3, 4), [0] * 6, torch.rand(6, 12, generator=torch.Generator().manual_seed(0)))
    assert len(RULES["holitom"].keep(video, 40).places) == 40
