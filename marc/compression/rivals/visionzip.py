"""VisionZip: the cells that receive most attention, and a few that stand for the others.

Source: Yang et al., arXiv 2412.04467; https://github.com/dvlab-research/VisionZip.

Of each grid by itself: the cells with the most attention are *dominant* and kept as they are. Of the rest every so
many one, in reading order, is a *contextual* target; each other cell belongs to the target whose key is most similar
(cosine), and a target becomes itself plus the mean of what belongs to it. 10 of 64 tokens are contextual (``round(10
/ 64 k)``).

Differences: the attention is the mean that a cell receives, as Qwen's tower has no class token. The count is shared
out equally among the grids. As in the authors' code the mean is added to a target, not averaged with it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from marc.compression.rivals.merging import Sums, in_float32, weighted_sums
from marc.compression.rivals.rule import EncodedVideo, KeptTokens
from marc.compression.shares import level

CONTEXTUAL = 10 / 64


def keep(video: EncodedVideo, count: int) -> KeptTokens:
    """Keeps the dominant and the contextual tokens of every grid."""
    assert video.attention is not None
    assert video.keys is not None
    grids, cells, _ = video.tokens.shape
    with torch.no_grad():
        keys_TPK = F.normalize(in_float32(video.keys), dim=-1)
        parts = [
            _of_grid(video.attention[grid], keys_TPK[grid], own).moved(grid * cells)
            for grid, own in enumerate(level(count, grids, cells))
        ]
    return weighted_sums(video, parts)


def _of_grid(attention_P: Tensor, keys_PK: Tensor, count: int) -> Sums:
    contextual = round(CONTEXTUAL * count)
    order = attention_P.argsort(descending=True, stable=True)
    dominant, rest = order[: count - contextual], order[count - contextual :].sort().values
    if not contextual:
        return Sums.unchanged(dominant)
    step = len(rest) // contextual
    is_target = torch.zeros_like(rest, dtype=torch.bool)
    is_target[: contextual * step : step] = True
    context, others = rest[is_target], rest[~is_target]
    nearest = (keys_PK[others] @ keys_PK[context].T).argmax(dim=1)
    share = 1 / torch.bincount(nearest, minlength=contextual)[nearest]
    alone = Sums.unchanged(torch.cat([dominant, context]))
    return Sums(
        alone.places,
        torch.cat([alone.sources, others]),
        torch.cat([alone.targets, nearest + len(dominant)]),
        torch.cat([alone.weights, share]),
    )
