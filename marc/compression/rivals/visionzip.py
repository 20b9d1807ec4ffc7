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

from marc.compression.rivals.merging import in_float32, weighted_sums
from marc.compression.rivals.rule import EncodedVideo, KeptTokens
from marc.compression.shares import level

CONTEXTUAL = 10 / 64


def keep(video: EncodedVideo, count: int) -> KeptTokens:
    """Keeps the dominant and the contextual tokens of every grid."""
    assert video.attention is not None
    assert video.keys is not None
    grids, cells, _ = video.tokens.shape
    places, sources, targets, weights = [], [], [], []
    with torch.no_grad():
        keys_TPK = F.normalize(in_float32(video.keys), dim=-1)
        kept = 0
        for grid, own in enumerate(level(count, grids, cells)):
            chosen, members, belongs, share = _of_grid(video.attention[grid], keys_TPK[grid], own)
            places.append(chosen + grid * cells)
            sources.append(members + grid * cells)
            targets.append(belongs + kept)
            weights.append(share)
            kept += own
    return weighted_sums(video, *(torch.cat(parts) for parts in (places, sources, targets, weights)))


def _of_grid(attention_P: Tensor, keys_PK: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The cells that are kept of one grid, and which cells contribute to which of them with which weight."""
    contextual = round(CONTEXTUAL * count)
    order = attention_P.argsort(descending=True, stable=True)
    dominant, rest = order[: count - contextual], order[count - contextual :].sort().values
    step = max(1, len(rest) // max(1, contextual))
    is_target = torch.zeros(len(rest), dtype=torch.bool, device=rest.device)
    is_target[: contextual * step : step] = True
    context, others = rest[is_target], rest[~is_target]
    chosen = torch.cat([dominant, context])
    whole = torch.arange(count, device=rest.device), torch.ones(count, device=rest.device)
    if not contextual:
        return chosen, chosen, *whole
    nearest = (keys_PK[others] @ keys_PK[context].T).argmax(dim=1)
    share = 1 / torch.bincount(nearest, minlength=contextual)[nearest]
    belongs = torch.cat([whole[0], nearest + len(dominant)])
    return chosen, torch.cat([chosen, others]), belongs, torch.cat([whole[1], share])
