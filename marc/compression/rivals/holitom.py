"""HoliTom, outside of the language model: still cells merge over the best windows, then each window is reduced.

Source: Shao et al., arXiv 2505.21334; https://github.com/cokeshao/HoliTom (without its merging inside of the language
model).

1. A cell is still from a grid to the next if the cosine similarity of its tokens is above 0.8. A window from grid s
   to e saves ``(e - s) n(s, e)`` tokens, where n is the number of cells that are still all the way. Dynamic
   programming divides the video into the windows that save most.
2. In each window every still cell becomes its mean over the window, at the first grid; the other cells stay.
3. Of what is left each part keeps the same ratio: of the moving cells of a grid those that receive most attention, of
   the still cells of a window the density peaks of 7 neighbours. A peak becomes ``0.6 x + 0.4 m``, where m is the
   mean of the still cells whose nearest peak it is.

All moving cells are chosen by attention, as in the authors' settings (``D = 0``), and the attention is the mean that
a cell receives, as with their SigLIP tower.

Differences: step 3 is rounded by largest remainder, so that the count is met, where the authors round every part by
itself, up or to the nearest. Where still cells leave fewer tokens than the count, the threshold of step 1 rises until
they do not. No noise is added to densities: cells of a window with one peak or two can be equally dense, and the
earlier one counts as denser.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from marc.compression.rivals.clustering import density_peaks
from marc.compression.rivals.merging import Sums, cosines, in_float32, largest_remainder, weighted_sums
from marc.compression.rivals.rule import EncodedVideo, KeptTokens

STILL = 0.8
NEIGHBOURS = 7
PEAK = 0.6
STEP = 1e-6
"""How exactly the threshold is found that leaves enough tokens."""


def keep(video: EncodedVideo, count: int) -> KeptTokens:
    """Keeps moving cells that receive attention and the peaks of still ones."""
    assert video.attention is not None
    cells = video.tokens.shape[1]
    with torch.no_grad():
        tokens_TPD = in_float32(video.tokens)
        grids = range(len(tokens_TPD))
        windows = _windows(cosines(tokens_TPD, grids[:-1], grids[1:]), count)
        still = [window.still for window in windows]
        moving = [~window.still for window in windows for _ in window.grids]
        numbers = largest_remainder([int(chosen_P.sum()) for chosen_P in still + moving], count)
        parts = [_peaks(tokens_TPD, window, own) for window, own in zip(windows, numbers, strict=False) if own]
        for grid, (chosen_P, own) in enumerate(zip(moving, numbers[len(windows) :], strict=True)):
            places = chosen_P.nonzero().flatten()
            order = video.attention[grid, places].argsort(descending=True, stable=True)
            parts.append(Sums.unchanged(places[order[:own]] + grid * cells))
    return weighted_sums(video, parts)


class _Window(NamedTuple):
    grids: range
    still: Tensor
    """Which cells are, ``[P]``; none where a window is one grid."""


def _windows(likeness: Tensor, count: int) -> list[_Window]:
    """The windows that save most, with a threshold that leaves enough tokens.

    Args:
        likeness: Of each cell of a grid with the next, ``[T - 1, P]``.
        count: As many tokens must be left.
    """
    grids, cells = likeness.shape[0] + 1, likeness.shape[1]
    least_saved = grids * cells - count
    threshold, above = STILL, 2.0
    starts, saved = _division(likeness > threshold)
    while saved > least_saved and above - threshold > STEP:
        middle = (threshold + above) / 2
        trial = _division(likeness > middle)
        if trial[1] > least_saved:
            threshold = middle
        else:
            above = middle
    if saved > least_saved:
        threshold = above
        starts, _ = _division(likeness > threshold)
    windows = []
    for start, end in pairwise([*starts, grids]):
        still = (likeness[start : end - 1] > threshold).all(dim=0) if end - start > 1 else None
        windows.append(
            _Window(range(start, end), likeness.new_zeros(cells, dtype=torch.bool) if still is None else still)
        )
    return windows


def _division(still: Tensor) -> tuple[list[int], int]:
    """First grids of the windows that save most, and how many tokens they save.

    Of several equally good divisions the one whose last windows are shortest, as the authors' loop finds it.

    Args:
        still: Which cells are, from each grid to the next, ``[T - 1, P]``.
    """
    all_still = still.cpu().numpy()
    grids = len(all_still) + 1
    saves = np.zeros((grids, grids), dtype=np.int64)
    for start in range(grids - 1):
        through = np.logical_and.accumulate(all_still[start:]).sum(1)
        saves[start, start + 1 :] = through * np.arange(1, grids - start)
    best, first = [0], []
    for end in range(grids):
        totals = [best[start] + saves[start, end] for start in range(end, -1, -1)]
        best.append(max(totals))
        first.append(end - totals.index(best[-1]))
    starts, end = [], grids - 1
    while end >= 0:
        starts.append(first[end])
        end = first[end] - 1
    return starts[::-1], int(best[-1])


def _peaks(tokens: Tensor, window: _Window, count: int) -> Sums:
    """The peaks of the still cells of a window, each with those that are nearest to it.

    Args:
        tokens: ``[T, P, D]``.
        window: Where.
        count: How many, at least 1.
    """
    length, cells = len(window.grids), tokens.shape[1]
    places = window.still.nonzero().flatten()
    means = tokens[window.grids.start : window.grids.stop, places].mean(dim=0)
    peaks, distance = density_peaks(means, count, min(NEIGHBOURS, count))
    is_peak = torch.zeros_like(places, dtype=torch.bool)
    is_peak[peaks] = True
    others = (~is_peak).nonzero().flatten()
    nearest = distance[others][:, peaks].argmin(dim=1)
    members = torch.bincount(nearest, minlength=count)
    own = torch.where(members > 0, PEAK, 1.0)
    sources, targets = (
        places[torch.cat([peaks, others])],
        torch.cat([torch.arange(count, device=peaks.device), nearest]),
    )
    weights = torch.cat([own, (1 - PEAK) / members[nearest]]) / length
    steps = torch.tensor(window.grids, device=places.device)[:, None] * cells
    return Sums(
        places[peaks] + window.grids.start * cells,
        (sources + steps).flatten(),
        targets.repeat(length),
        weights.repeat(length),
    )
