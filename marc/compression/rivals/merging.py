"""What the rules share: tokens kept as they are, tokens that become weighted sums, grids that are pooled to a budget.

Shapes: T temporal grids, P cells a grid, D channels, N tokens that are kept, M pairs of a token and a kept token to
which it contributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from marc.compression.cells import Cells, Size, centers, covered, fit_cells
from marc.compression.rivals.rule import EncodedVideo, KeptTokens


def in_float32(values: Tensor) -> Tensor:
    """Values in the precision in which rules decide: float32, or better if they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def cosines(tokens_TPD: Tensor, grids: Sequence[int], others: Sequence[int]) -> Tensor:
    """Cosine similarities of the cells of some grids with the same cells of others, ``[len(grids), P]``.

    One grid after the other: what is computed in between then stays in the processor's cache.
    """
    rows = [F.cosine_similarity(tokens_TPD[a], tokens_TPD[b], dim=-1) for a, b in zip(grids, others, strict=True)]
    return torch.stack(rows) if rows else tokens_TPD.new_empty(0, tokens_TPD.shape[1])


def as_they_are(video: EncodedVideo, places_N: Tensor) -> KeptTokens:
    """Keeps some tokens and drops the others.

    Args:
        video: The video.
        places_N: Which, each once, in any order.
    """
    places_N = places_N.sort().values
    return KeptTokens(video.tokens.flatten(0, 1)[places_N], places_N)


class Sums(NamedTuple):
    """Tokens that are weighted sums of a video's.

    Attributes:
        places: ``int64 [N]``, where they stand, each once, in any order.
        sources: ``int64 [M]``, places of the tokens that contribute, any number of times.
        targets: ``int64 [M]``, to which sum each contributes, as an index into ``places``.
        weights: ``[M]``, with which weight.
    """

    places: Tensor
    sources: Tensor
    targets: Tensor
    weights: Tensor

    @classmethod
    def unchanged(cls, places_N: Tensor) -> Sums:
        """Tokens as they are."""
        return cls(places_N, places_N, torch.arange(len(places_N), device=places_N.device), torch.ones_like(places_N))

    def moved(self, places: int) -> Sums:
        """The same sums so many places further on in the video."""
        return self._replace(places=self.places + places, sources=self.sources + places)


def weighted_sums(video: EncodedVideo, parts: Sequence[Sums]) -> KeptTokens:
    """Makes every kept token a weighted sum of tokens; gradients reach them with their weights.

    Args:
        video: The video.
        parts: Of which no two stand at the same place.
    """
    starts = accumulate((len(part.places) for part in parts), initial=0)
    places_N, order_N = torch.cat([part.places for part in parts]).sort()
    targets_M = torch.cat([part.targets + start for part, start in zip(parts, starts, strict=False)])
    targets_M, order_M = order_N.argsort()[targets_M].sort(stable=True)
    sources_M = torch.cat([part.sources for part in parts])[order_M]
    counts_N = torch.bincount(targets_M, minlength=len(places_N))
    tokens = video.tokens.flatten(0, 1)
    exact = in_float32(tokens)
    weights_M = torch.cat([part.weights.to(exact.dtype) for part in parts])[order_M]
    summed_ND = F.embedding_bag(
        sources_M, exact, counts_N.cumsum(0) - counts_N, mode="sum", per_sample_weights=weights_M
    )
    return KeptTokens(summed_ND.to(tokens.dtype), places_N)


def averages(video: EncodedVideo, places_N: Tensor, sources_M: Tensor, targets_M: Tensor) -> KeptTokens:
    """`weighted_sums` in which all that contribute to a sum weigh the same; arguments as of `Sums`."""
    counts_N = torch.bincount(targets_M, minlength=len(places_N))
    return weighted_sums(video, [Sums(places_N, sources_M, targets_M, 1 / counts_N[targets_M])])


def pooled(video: EncodedVideo, grids: Sequence[int], tokens: Sequence[int]) -> KeptTokens:
    """Pools some grids, each to its number of tokens, which stand at the centres of what they average.

    Args:
        video: The video.
        grids: Which, in order.
        tokens: Of each, from 1 to P.
    """
    device, cells = video.tokens.device, video.tokens.shape[1]
    kept, places = [], []
    for grid, count in zip(grids, tokens, strict=True):
        division = fit_cells(video.size, count)
        places += [grid * cells + row * video.size[1] + column for row, column in centers(video.size, division)]
        if count == cells:
            kept.append(video.tokens[grid])
            continue
        grid_PD = in_float32(video.tokens[grid])
        weights_NP = torch.tensor(_weights(video.size, division), dtype=grid_PD.dtype).to(device)
        kept.append((weights_NP @ grid_PD).to(video.tokens.dtype))
    places_N, order_N = torch.tensor(places, device=device).sort()
    return KeptTokens(torch.cat(kept)[order_N], places_N)


@lru_cache(64)
def _weights(size: Size, division: Cells) -> NDArray[np.float64]:
    """The weight of each place of a grid in each cell of a division, ``[N, P]``; rows sum to 1."""
    areas = np.array([np.outer(rows, columns).ravel() for rows, columns in covered(size, division)])
    return areas / areas.sum(1, keepdims=True)


def evenly(count: int, total: int) -> list[int]:
    """So many of ``0 .. total - 1``, each in the middle of an equal part of them."""
    return [(2 * index + 1) * total // (2 * count) for index in range(count)]


def largest_remainder(sizes: Sequence[int], count: int) -> list[int]:
    """Shares a count out in proportion to sizes, to the last token, and to none more than its size.

    Args:
        sizes: Any, which sum to ``count`` at least.
        count: Of all.
    """
    total = sum(sizes)
    parts = [count * size // total for size in sizes]
    rest = sorted(range(len(sizes)), key=lambda index: -(count * sizes[index] % total))
    for index in rest[: count - sum(parts)]:
        parts[index] += 1
    return parts


def fill(total: int, room: Sequence[int]) -> list[int]:
    """Shares a total out equally, the first ones a token more; what has no room goes on to the others.

    Args:
        total: Of all; what nobody has room for is not given out.
        room: Most of each.
    """
    given = [0] * len(room)
    while total and (open_ := [index for index, most in enumerate(room) if given[index] < most]):
        each = max(1, min(total // len(open_), *(room[index] - given[index] for index in open_)))
        for index in open_[:total]:
            given[index] += each
            total -= each
    return given
