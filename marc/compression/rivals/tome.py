"""Token merging (ToMe): bipartite soft matching, of the tower's output cells.

Source: Bolya et al., arXiv 2210.09461; https://github.com/facebookresearch/ToMe.

Of each grid by itself, in rounds: the tokens are dealt in turn into the sets A and B; every one of A is matched with
its most similar one of B (cosine), and the r best matches merge into the one of B, as means over all cells that a
token stands for. What remains of A goes before B in the next round. A round merges half of the tokens at most.

Differences: the authors merge r tokens in every block of the tower, by the keys of its attention, and attend in
proportion to a token's size. Here the tower is left as it is: its output cells merge, by their features, in as few
rounds as the count needs, which is shared out equally among the grids. A token stands where its first one of B
stands.
"""

from __future__ import annotations

from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from marc.compression.rivals.merging import averages, in_float32
from marc.compression.rivals.rule import EncodedVideo, KeptTokens
from marc.compression.shares import level


def keep(video: EncodedVideo, count: int) -> KeptTokens:
    """Merges the cells of every grid until it has its part of the count."""
    grids, cells, _ = video.tokens.shape
    device = video.tokens.device
    with torch.no_grad():
        tokens_TPD = in_float32(video.tokens)
        runs = [(own, len(list(run))) for own, run in groupby(level(count, grids, cells))]
        some = tokens_TPD.split([length for _, length in runs])
        standing_TP = torch.cat([_matched(tokens, own) for tokens, (own, _) in zip(some, runs, strict=True)])
        standing = (standing_TP + cells * torch.arange(grids, device=device)[:, None]).flatten()
    places, targets = standing.unique(return_inverse=True)
    return averages(video, places, torch.arange(grids * cells, device=device), targets)


def _matched(tokens_GPD: Tensor, count: int) -> Tensor:
    """At which cell of its grid the token stands that each cell became part of, ``[G, P]``."""
    grids, cells, _ = tokens_GPD.shape
    place_Gn = torch.arange(cells, device=tokens_GPD.device).repeat(grids, 1)
    member_GP, size_Gn = place_Gn, torch.ones_like(place_Gn)
    while (left := place_Gn.shape[1]) > count:
        merges = min(left - count, left // 2)
        unit_GnD = F.normalize(tokens_GPD, dim=-1)
        best_GA, match_GA = (unit_GnD[:, ::2] @ unit_GnD[:, 1::2].mT).max(dim=2)
        order_GA = best_GA.argsort(dim=1, descending=True, stable=True)
        goes, stays = order_GA[:, :merges], order_GA[:, merges:]
        to = match_GA.gather(1, goes)
        # rows of the next round: what stays of A, then B
        becomes = torch.empty_like(place_Gn)
        becomes[:, 1::2] = stays.shape[1] + torch.arange(left // 2, device=to.device)
        becomes.scatter_(1, 2 * stays, torch.arange(stays.shape[1], device=to.device).expand_as(stays))
        becomes.scatter_(1, 2 * goes, stays.shape[1] + to)
        member_GP = becomes.gather(1, member_GP)
        place_Gn = torch.cat([place_Gn.gather(1, 2 * stays), place_Gn[:, 1::2]], dim=1)
        tokens_GPD = _means(tokens_GPD, size_Gn, becomes, left - merges)
        size_Gn = torch.zeros_like(place_Gn).scatter_add_(1, becomes, size_Gn)
    return place_Gn.gather(1, member_GP)


def _means(tokens_GnD: Tensor, size_Gn: Tensor, becomes_Gn: Tensor, count: int) -> Tensor:
    """Means of what becomes one token, weighted by the cells that each stands for: ``[G, count, D]``."""
    weights_Gnc = F.one_hot(becomes_Gn, count) * size_Gn[:, :, None]
    weights_Gnc = (weights_Gnc / weights_Gnc.sum(dim=1, keepdim=True)).to(tokens_GnD.dtype)
    return weights_Gnc.mT @ tokens_GnD
