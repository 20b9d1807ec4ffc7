"""PruMerge: outliers of attention, each enriched by the cells with similar keys.

Source: Shang et al., LLaVA-PruMerge, arXiv 2403.15388; https://github.com/42Shawn/LLaVA-PruMerge.

Of each grid by itself: a grid has as many tokens as it has *outliers*, cells whose attention ``a`` is above ``Q3 +
1.5 (Q3 - Q1)`` of its quartiles. The cells with the most attention are kept; each becomes itself plus ``sum_j a_j
x_j`` over the 32 other cells with the most similar keys (cosine). One more token is ``sum_j a_j x_j`` over all that
were not kept.

Differences: the attention is the mean that a cell receives, made to sum to 1 over a grid, as Qwen's tower has no
class token. The count is shared out in proportion to the outliers, at least one token a grid; the token of what was
not kept is one of them where a grid has two or more, and stands at the strongest of those cells. PruMerge+, which
adds evenly spaced cells, is another rule.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from marc.compression.rivals.merging import Sums, in_float32, weighted_sums
from marc.compression.rivals.rule import EncodedVideo, KeptTokens
from marc.compression.shares import in_proportion

NEIGHBOURS = 32
WHISKER = 1.5


def keep(video: EncodedVideo, count: int) -> KeptTokens:
    """Keeps the cells with the most attention, with what is similar, and one token of the rest of each grid."""
    assert video.attention is not None
    assert video.keys is not None
    grids, cells, _ = video.tokens.shape
    with torch.no_grad():
        attention_TP = F.normalize(in_float32(video.attention), p=1, dim=-1)
        keys_TPK = F.normalize(in_float32(video.keys), dim=-1)
        # beside the outliers a cell's worth each, by which grids share what those with outliers have no room for
        shares = [outliers * cells + 1 for outliers in _outliers(attention_TP).tolist()]
        parts = [
            _of_grid(attention_TP[grid], keys_TPK[grid], own).moved(grid * cells)
            for grid, own in enumerate(in_proportion(shares, [cells] * grids, count))
        ]
    return weighted_sums(video, parts)


def _outliers(attention_TP: Tensor) -> Tensor:
    """How many cells of each grid receive unusually much attention, ``[T]``."""
    first_T, third_T = attention_TP.quantile(torch.tensor([0.25, 0.75], device=attention_TP.device), dim=1)
    return (attention_TP > (third_T + WHISKER * (third_T - first_T))[:, None]).sum(dim=1)


def _of_grid(attention_P: Tensor, keys_PK: Tensor, count: int) -> Sums:
    cells = len(attention_P)
    has_rest = 1 < count < cells
    order = attention_P.argsort(descending=True, stable=True)
    centres, rest = order[: count - has_rest], order[count - has_rest :]
    likeness = keys_PK[centres] @ keys_PK.T
    likeness.scatter_(1, centres[:, None], -torch.inf)
    near = likeness.argsort(dim=1, descending=True, stable=True)[:, : min(NEIGHBOURS, cells - 1)]
    alone = Sums.unchanged(centres)
    sources = [alone.sources, near.flatten()]
    targets = [alone.targets, alone.targets.repeat_interleave(near.shape[1])]
    weights = [alone.weights, attention_P[near.flatten()]]
    if has_rest:
        sources.append(rest)
        targets.append(torch.full_like(rest, len(centres)))
        weights.append(attention_P[rest])
    return Sums(order[:count], torch.cat(sources), torch.cat(targets), torch.cat(weights))
