"""FastVID against its description."""

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from random_videos import random_video
from rival_cases import best, cases, cosine, density_peaks, rounded

from marc.compression.rivals.rule import RULES, EncodedVideo


def segments(likeness: list[float]) -> list[list[int]]:
    lowest = sorted(range(len(likeness)), key=lambda index: likeness[index])[:7]
    found = [[0]]
    for grid in range(1, len(likeness) + 1):
        if likeness[grid - 1] < 0.84 or grid - 1 in lowest:
            found.append([])
        found[-1].append(grid)
    return found


def dealt(total: int, room: list[int]) -> list[int]:
    """One after the other to everybody who has room."""
    given_out = [0] * len(room)
    while total and given_out != room:
        for index in range(len(room)):
            if total and given_out[index] < room[index]:
                given_out[index] += 1
                total -= 1
    return given_out


def numbers(segment: list[int], likeness: list[float], count: int, cells: int) -> tuple[dict, dict]:
    """Salient and context tokens of each grid."""
    shown = [grid for grid in segment if grid == segment[-1] or likeness[grid] < 0.95]
    anchors = [grid for index, grid in enumerate(reversed(shown)) if index % 4 == 0]
    context = dict.fromkeys(segment, 0)
    context |= dict(zip(anchors, dealt(max(1, int(0.4 * count)), [cells // 2] * len(anchors)), strict=True))
    left = count - sum(context.values())
    salient = dict(zip(shown, dealt(left, [cells - context[grid] for grid in shown]), strict=True))
    others = [grid for grid in segment if grid not in shown]
    left -= sum(salient.values())
    return salient | dict(zip(others, dealt(left, [cells] * len(others)), strict=True)), context


def of_segment(tokens, attention, segment: list[int], salient: dict, context: dict) -> dict[int, np.ndarray]:
    cells = tokens.shape[1]
    flat = tokens.reshape(-1, tokens.shape[2])
    kept = {}
    for grid in segment:
        for cell in best(dict(enumerate(attention[grid])), salient[grid]):
            kept[grid * cells + cell] = tokens[grid, cell]
    strong = set(kept)
    for grid in segment:
        rest = [grid * cells + cell for cell in range(cells) if grid * cells + cell not in strong]
        peaks = [rest[point] for point in density_peaks(flat[rest], context[grid], 4)] if context[grid] else []
        members = {peak: [] for peak in peaks}
        for place in range(segment[0] * cells, (segment[-1] + 1) * cells):
            if peaks and place not in strong and place not in peaks:
                members[max(peaks, key=lambda peak: cosine(flat[place], flat[peak]))].append(flat[place])
        for peak in peaks:
            own = max(0.6, 1 / (len(members[peak]) + 1))
            kept[peak] = own * flat[peak] + (1 - own) * (np.mean(members[peak], axis=0) if members[peak] else 0)
    return kept


@given(case=cases("fastvid", most_grids=14))
@settings(max_examples=40, deadline=None)
def test_salient_tokens_and_anchors_of_segments(case):
    video, count = case
    # similar grids, so that there are segments of several
    tokens = (video.tokens + 3 * video.tokens.mean((0, 1))).numpy()
    grids, cells, _ = tokens.shape
    likeness = [cosine(a.mean(0), b.mean(0)) for a, b in pairwise(tokens)]
    found = segments(likeness)
    expected = {}
    for segment, own in zip(found, rounded([len(segment) * count / grids for segment in found]), strict=True):
        salient, context = numbers(segment, likeness, own, cells)
        expected |= of_segment(tokens, video.attention.numpy(), segment, salient, context)
    video = EncodedVideo(torch.from_numpy(tokens), video.size, video.events, video.attention)
    kept = RULES["fastvid"].keep(video, count)
    assert kept.places.tolist() == sorted(expected)
    for place, token in zip(kept.places.tolist(), kept.tokens, strict=True):
        assert np.allclose(expected[place], token.numpy(), atol=1e-6)


def test_grids_that_repeat_the_next_have_no_tokens_of_their_own():
    tokens = random_video(1, 4, 4, 16, seed=0).tokens.repeat(12, 1, 1)
    video = EncodedVideo(tokens, (4, 4), [0] * 12, torch.rand(12, 16, generator=torch.Generator().manual_seed(0)))
    kept = RULES["fastvid"].keep(video, 12)
    # seven cuts in any case: grids 0 to 6 by themselves, then one segment whose last grid stands for it
    assert torch.bincount(kept.places // 16, minlength=12).tolist() == [1] * 7 + [0] * 4 + [5]
