"""Token merging (ToMe): bipartite soft matching, of the tower's output cells.

Source: Bolya et al., arXiv 2210.09461; https://github.com/facebookresearch/ToMe.

Of each grid by itself, in rounds: the tokens are dealt in turn into the sets A and B; every one of A is matched with
its most similar one of B (cosine), and the r best matches merge into the one of B, as means over all cells that a
token stands for. What remains of A goes before B in the next round. A round merges half of the tokens at most.

The authors merge r tokens in every block of the vision tower, by the keys of its attention. `EncodedVideo.standing`
tells which cells a tower has merged so (`marc.model.qwen2_5_vl.merging_cells`); what is left to merge, and everything
where no tower was asked, merges behind it, by its features, in as few rounds as the count needs, which is shared out
equally among the grids. A token stands where its first one of B stands.

Difference: the authors attend in proportion to a token's size.

Shapes: G some of the grids, n tokens that a grid has left, r that merge.
"""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

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
        before_TP = torch.arange(cells, device=device).repeat(grids, 1) if video.standing is None else video.standing
        counts = level(count, grids, cells)
        lengths = [len(list(run)) for _, run in groupby(counts)]
        some = zip(tokens_TPD.split(lengths), before_TP.split(lengths), dict.fromkeys(counts), strict=True)
        standing_TP = torch.cat([_matched(tokens, before, own) for tokens, before, own in some])
        standing = (standing_TP + cells * torch.arange(grids, device=device)[:, None]).flatten()
    places, targets = standing.unique(return_inverse=True)
    return averages(video, places, torch.arange(grids * cells, device=device), targets)


class Pairs(NamedTuple):
    """What merges in a round.

    Attributes:
        goes: ``[G, r]``, of the tokens with even numbers.
        stays: The other even ones.
        to: ``[G, r]``, with which of those with odd numbers each that goes merges; halves of these numbers.
    """

    goes: Tensor
    stays: Tensor
    to: Tensor


def match(metric_GnK: Tensor, merges: int) -> Pairs:
    """Bipartite soft matching: every other token with the most similar one of the rest, by cosine, and the best r.

    Args:
        metric_GnK: By what tokens are compared.
        merges: r, at most half of the tokens.
    """
    unit_GnK = F.normalize(metric_GnK, dim=-1)
    best_GA, match_GA = (unit_GnK[:, ::2] @ unit_GnK[:, 1::2].mT).max(dim=2)
    order_GA = best_GA.argsort(dim=1, descending=True, stable=True)
    goes, stays = order_GA[:, :merges], order_GA[:, merges:]
    return Pairs(2 * goes, 2 * stays, match_GA.gather(1, goes))


def _matched(tokens_GPD: Tensor, before_GP: Tensor, count: int) -> Tensor:
    """At which cell of its grid the token stands that each cell became part of, ``[G, P]``.

    Args:
        tokens_GPD: Cells that are one already have equal ones.
        before_GP: Where each stands already; grids have the same number left.
        count: Of the tokens to leave in each.
    """
    grids, cells, width = tokens_GPD.shape
    is_left_GP = before_GP == torch.arange(cells, device=before_GP.device)
    place_Gn = is_left_GP.nonzero()[:, 1].unflatten(0, (grids, -1))
    member_GP = (is_left_GP.cumsum(1) - 1).gather(1, before_GP)
    size_Gn = torch.zeros_like(place_Gn).scatter_add_(1, member_GP, torch.ones_like(member_GP))
    tokens_GnD = tokens_GPD.gather(1, place_Gn[:, :, None].expand(-1, -1, width))
    while (left := place_Gn.shape[1]) > count:
        merges = min(left - count, left // 2)
        goes, stays, to = match(tokens_GnD, merges)
        # rows of the next round: what stays of A, then B
        becomes = torch.empty_like(place_Gn)
        becomes[:, 1::2] = stays.shape[1] + torch.arange(left // 2, device=to.device)
        becomes.scatter_(1, stays, torch.arange(stays.shape[1], device=to.device).expand_as(stays))
        becomes.scatter_(1, goes, stays.shape[1] + to)
        member_GP = becomes.gather(1, member_GP)
        place_Gn = torch.cat([place_Gn.gather(1, stays), place_Gn[:, 1::2]], dim=1)
        tokens_GnD = weighted_means(tokens_GnD, size_Gn, becomes, left - merges)
        size_Gn = torch.zeros_like(place_Gn).scatter_add_(1, becomes, size_Gn)
    return place_Gn.gather(1, member_GP)


def weighted_means(tokens_GnD: Tensor, size_Gn: Tensor, becomes_Gn: Tensor, count: int) -> Tensor:
    """Means of what becomes one token, weighted by the cells that each stands for: ``[G, count, D]``."""
    weights_Gnc = F.one_hot(becomes_Gn, count) * size_Gn[:, :, None]
    weights_Gnc = (weights_Gnc / weights_Gnc.sum(dim=1, keepdim=True)).to(tokens_GnD.dtype)
    return weights_Gnc.mT @ tokens_GnD
