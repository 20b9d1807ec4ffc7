"""Near-duplicate grids, found on their pixels before the vision tower, so that each is encoded once.

A tower that reads every temporal grid by itself gives grids with equal pixels equal features: encoding one of them and
repeating the result gives what encoding all of them gives. Screen recordings, slides and cameras that watch an empty
room are full of such grids.

Shapes: T temporal grids, P patches of a grid, C numbers of a patch.
"""

from __future__ import annotations

from torch import Tensor

SAMPLED_PATCHES = 8
"""Every so many patches of neighbours are compared first, all at once: most grids that differ are told apart so."""


def grid_distance(a_PC: Tensor, b_PC: Tensor) -> Tensor:
    """How much two grids differ where they differ most.

    ``max_p 1/C sum_c |a_pc - b_pc|``: the mean over a patch hides the noise of a codec or a sensor, the maximum over
    patches keeps a cursor or a word that moves on a still picture. A metric, in the units of the pixels.

    Args:
        a_PC: ``[..., P, C]``.
        b_PC: As ``a_PC``.

    Returns:
        ``[...]``.
    """
    return (a_PC - b_PC).abs().mean(-1).amax(-1)


def distinct_grids(grids_TPC: Tensor, threshold: float) -> list[int]:
    """Tells which grids can share one encoding.

    A grid is encoded anew if it differs by more than ``threshold`` from the last one that was; so every grid is
    within ``threshold`` of the one that stands for it, however slowly the picture changes.

    Args:
        grids_TPC: Pixels ``[T, P, C]`` as the processor makes them.
        threshold: Largest `grid_distance`; 0: only grids with equal pixels.

    Returns:
        For each grid, which of the distinct grids stands for it: 0, then the same or one more than the one before.
    """
    sampled_TPC = grids_TPC[:, ::SAMPLED_PATCHES]
    apart = (grid_distance(sampled_TPC[1:], sampled_TPC[:-1]) > threshold).tolist()
    shown, numbers = 0, [0]
    for grid in range(1, len(grids_TPC)):
        a_PC, b_PC = grids_TPC[shown], grids_TPC[grid]
        told_apart = apart[grid - 1] if shown == grid - 1 else False
        differs = told_apart or bool(grid_distance(a_PC, b_PC) > threshold)
        shown = grid if differs else shown
        numbers.append(numbers[-1] + differs)
    return numbers
