"""Clustering by density peaks (DPC-KNN), with which HoliTom and FastVID choose tokens that stand for others.

Rodriguez and Laio, Science 344 (2014), with densities of nearest neighbours (Du et al., 2016).

Shapes: M points of D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def density_peaks(points_MD: Tensor, count: int, neighbours: int) -> tuple[Tensor, Tensor]:
    """Points that are dense and far from any that is denser.

    The density of a point is ``exp(-mean d^2)`` over its nearest neighbours, itself among them, with distances divided
    by ``sqrt(D)``; its score is the density times the distance to the nearest denser point, or the largest distance
    of all. Of two points of one density the earlier counts as the denser one, where the papers' code adds noise.

    Args:
        points_MD: ``[M, D]``.
        count: How many, from 1 to M.
        neighbours: As many nearest ones, or all if there are fewer.

    Returns:
        The points, ``int64 [count]`` and ascending, and all distances, ``[M, M]``.
    """
    distance_MM = torch.cdist(points_MD, points_MD) / points_MD.shape[1] ** 0.5
    distance_MM = torch.minimum(distance_MM, distance_MM.T).fill_diagonal_(0)  # by products both are slightly off
    nearest = distance_MM.topk(min(neighbours, len(points_MD)), largest=False).values
    density_M = torch.exp(-nearest.square().mean(dim=1))
    earlier = torch.ones_like(distance_MM, dtype=torch.bool).tril(-1)
    denser = (density_M > density_M[:, None]) | ((density_M == density_M[:, None]) & earlier)
    score_M = density_M * torch.where(denser, distance_MM, distance_MM.max()).min(dim=1).values
    return score_M.argsort(descending=True, stable=True)[:count].sort().values, distance_MM
