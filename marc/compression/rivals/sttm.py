"""STTM: each grid becomes a quadtree of coarse and fine cells, which merge over time.

Source: Hyun et al., arXiv 2507.07990; https://github.com/HYUNJS/STTM.

1. A pyramid of each grid: a node of the next coarser level is the mean of its 2 x 2 nodes; of an odd number of rows
   or columns the first has nodes of its own. The roots are the second coarsest level, where the coarsest has a side
   of 2.
2. From the roots on a node is split into its children unless the cosine similarity of every child with it reaches a
   threshold.
3. Nodes of neighbouring grids of which one lies inside the other are joined if their cosine similarity reaches a
   second threshold, and so on through time. What is joined becomes the mean of its nodes, at the first one's upper
   left cell.

Differences: the thresholds are what meets the count. They rise and fall together, 0.2 apart as the authors have them
(0.8 and 0.6 for Qwen2-VL at 30 %); what the thresholds leave above the count goes by further joints, the most similar
nodes first, and then by joining neighbours under one root. Where a grid has more roots than the count, coarser levels
are the roots. The authors' code may stop before all that is joined in several steps has become one; here it always
does. They merge behind the second block of the language model, here the tokens merge before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import pairwise, product

import torch
import torch.nn.functional as F
from torch import Tensor

from marc.compression.cells import Size
from marc.compression.rivals.merging import Sums, in_float32, weighted_sums
from marc.compression.rivals.rule import EncodedVideo, KeptTokens

APART = 0.2
STEPS = 16
"""By how many halvings the thresholds are found, to within 0.00004."""


def keep(video: EncodedVideo, count: int) -> KeptTokens:
    """Keeps the nodes of quadtrees that are left when those that are alike have been joined."""
    with torch.no_grad():
        tree = _tree(video.size, _root_level(video.size, count)).on(video.tokens.device)
        scores = _scored(in_float32(video.tokens), tree)
        low, high = -1 - APART, 1 + 2 * APART
        cut = _cut(tree, scores, high)
        for _ in range(STEPS):
            middle = (low + high) / 2
            trial = _cut(tree, scores, middle)
            if trial.count >= count:
                high, cut = middle, trial
            else:
                low = middle
        sums = _merged(tree, cut.active, _joined_further(tree, scores, cut, count))
    return weighted_sums(video, [sums])


@dataclass(frozen=True)
class _Tree:
    """The quadtree of every grid of one size: L levels, n nodes, the cells first, K pairs.

    Attributes:
        ancestors: ``int64 [L, P]``, the node of each level that holds each cell.
        parents: ``int64 [n]``; a root has itself.
        shares: ``[n, P]``, the weight of each cell in each node.
        firsts: ``int64 [n]``, the upper left cell of each node.
        pairs: ``int64 [2, K]``, nodes of which one lies inside the other, in both orders, and each with itself.
    """

    ancestors: Tensor
    parents: Tensor
    shares: Tensor
    firsts: Tensor
    pairs: Tensor

    def on(self, device: torch.device) -> _Tree:
        return _Tree(*(getattr(self, field.name).to(device) for field in fields(self)))

    @property
    def is_root(self) -> Tensor:
        return self.parents == torch.arange(len(self.parents), device=self.parents.device)


@dataclass(frozen=True)
class _Scores:
    """Similarities.

    Attributes:
        worst_child: ``[T, n]``, of a node with the least similar of its children; infinite for cells.
        pairs: ``[T - 1, K]``, of the first node of a pair in one grid with the second in the next.
    """

    worst_child: Tensor
    pairs: Tensor


@dataclass(frozen=True)
class _Cut:
    """What thresholds make of a video.

    Attributes:
        threshold: Of similarities of children; that of nodes in time is `APART` lower.
        active: ``bool [T, n]``, the nodes that divide each grid.
        joined: ``int64 [T * n]``, the first node of those with which each is joined.
        count: Of joined active nodes.
    """

    threshold: float
    active: Tensor
    joined: Tensor
    count: int


def _levels(size: Size) -> list[Size]:
    """Sizes of a pyramid, finest first, down to one node."""
    sizes = [size]
    while sizes[-1] != (1, 1):
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


def _root_level(size: Size, count: int) -> int:
    sizes = _levels(size)
    coarsest = next(level for level, some in enumerate(sizes) if min(some) <= 2)
    levels = range(max(0, coarsest - 1), len(sizes))
    return next(level for level in levels if sizes[level][0] * sizes[level][1] <= count)


@lru_cache(16)
def _tree(size: Size, root: int) -> _Tree:
    cells = torch.arange(size[0] * size[1])
    rows, columns = cells // size[1], cells % size[1]
    ancestors, parents, shares = [cells], cells.clone(), torch.eye(len(cells))
    for (height, width), (_, new_width) in pairwise(_levels(size)[: root + 1]):
        rows, columns = (rows + height % 2) // 2, (columns + width % 2) // 2
        start = len(parents)
        ancestors.append(rows * new_width + columns + start)
        children, own = torch.stack(ancestors[-2:]).unique(dim=1)
        parents[children] = own
        parents = torch.cat([parents, own.unique()])
        is_child = F.one_hot(own - start).T.float()
        shares = torch.cat([shares, is_child / is_child.sum(dim=1, keepdim=True) @ shares[children]])
    pairs = [torch.stack(both).unique(dim=1) for both in product(ancestors, repeat=2)]
    return _Tree(torch.stack(ancestors), parents, shares, shares.gt(0).long().argmax(dim=1), torch.cat(pairs, dim=1))


def _scored(tokens_TPD: Tensor, tree: _Tree) -> _Scores:
    coarser_TmD = tree.shares[tokens_TPD.shape[1] :].to(tokens_TPD.dtype) @ tokens_TPD
    unit_TnD = F.normalize(torch.cat([tokens_TPD, coarser_TmD], dim=1), dim=-1)
    children = (~tree.is_root).nonzero().flatten()
    parents = tree.parents[children]
    likeness = torch.stack([(unit_nD[children] * unit_nD[parents]).sum(dim=-1) for unit_nD in unit_TnD])
    worst = torch.full_like(unit_TnD[..., 0], torch.inf).scatter_reduce(
        1, parents.expand_as(likeness), likeness, "amin"
    )
    of_pairs = [(one_nD @ next_nD.T)[tree.pairs[0], tree.pairs[1]] for one_nD, next_nD in pairwise(unit_TnD)]
    return _Scores(worst, torch.stack(of_pairs) if of_pairs else worst.new_empty(0, tree.pairs.shape[1]))


def _cut(tree: _Tree, scores: _Scores, threshold: float) -> _Cut:
    splits_Tn = scores.worst_child < threshold
    reached_Tn = tree.is_root.expand_as(splits_Tn)
    for _ in tree.ancestors[1:]:
        reached_Tn = tree.is_root | (reached_Tn & splits_Tn)[:, tree.parents]
    active_Tn = reached_Tn & ~splits_Tn
    a, b = _ends(tree, *_active_pairs(tree, active_Tn, scores.pairs >= threshold - APART))
    joined = nodes = torch.arange(active_Tn.numel(), device=active_Tn.device)
    while True:
        least = torch.minimum(joined[a], joined[b])
        further = joined.scatter_reduce(0, joined[a], least, "amin").scatter_reduce(0, joined[b], least, "amin")
        further = further[further]
        if torch.equal(further, joined):
            break
        joined = further
    return _Cut(threshold, active_Tn, joined, int((active_Tn.flatten() & (joined == nodes)).sum()))


def _active_pairs(tree: _Tree, active_Tn: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Grid and number of the chosen pairs both nodes of which are active."""
    one, other = tree.pairs
    grid, pair = (chosen & active_Tn[:-1, one] & active_Tn[1:, other]).nonzero(as_tuple=True)
    return grid, pair


def _ends(tree: _Tree, grid: Tensor, pair: Tensor) -> tuple[Tensor, Tensor]:
    """Both nodes of pairs, as ``t * n + node``."""
    nodes = len(tree.parents)
    return grid * nodes + tree.pairs[0, pair], (grid + 1) * nodes + tree.pairs[1, pair]


def _joined_further(tree: _Tree, scores: _Scores, cut: _Cut, count: int) -> Tensor:
    """`_Cut.joined` with as many joints more as leave the count: in time, the most similar first, then under roots."""
    joined = cut.joined.tolist()

    def first(node: int) -> int:
        while joined[node] != node:
            node = joined[node]
        return node

    left = cut.count - count
    for one, other in _further_joints(tree, scores, cut) if left else ():
        low, high = sorted((first(one), first(other)))
        if low != high:
            joined[high] = low
            left -= 1
            if not left:
                break
    return torch.tensor([first(node) for node in joined], device=cut.joined.device)


def _further_joints(tree: _Tree, scores: _Scores, cut: _Cut) -> Iterable[tuple[int, int]]:
    """Nodes that may be joined below the threshold."""
    grid, pair = _active_pairs(tree, cut.active, scores.pairs < cut.threshold - APART)
    order = scores.pairs[grid, pair].argsort(descending=True, stable=True)
    a, b = _ends(tree, grid[order], pair[order])
    yield from zip(a.tolist(), b.tolist(), strict=True)
    roots = tree.parents
    for _ in tree.ancestors:
        roots = roots[roots]
    grid, node = cut.active.nonzero(as_tuple=True)
    tops = (grid * len(roots) + roots[node]).tolist()
    under_root = sorted(zip(tops, tree.firsts[node].tolist(), (grid * len(roots) + node).tolist(), strict=True))
    for (top, _, one), (next_top, _, other) in pairwise(under_root):
        if top == next_top:
            yield one, other


def _merged(tree: _Tree, active_Tn: Tensor, joined: Tensor) -> Sums:
    grids, nodes = active_Tn.shape
    cells = tree.shares.shape[1]
    places_TP = torch.arange(grids * cells, device=joined.device).view(grids, cells)
    owner_TP = torch.zeros_like(places_TP)
    for ancestors_P in tree.ancestors:
        owner_TP = torch.where(active_Tn[:, ancestors_P], ancestors_P, owner_TP)
    grid, node = active_Tn.nonzero(as_tuple=True)
    label = joined[grid * nodes + node]
    members = torch.bincount(label, minlength=len(joined))
    first = torch.full_like(joined, grids * cells).scatter_reduce(0, label, grid * cells + tree.firsts[node], "amin")
    label_TP = joined[places_TP // cells * nodes + owner_TP]
    weights_TP = tree.shares[owner_TP, places_TP % cells] / members[label_TP]
    kept, targets = label_TP.flatten().unique(return_inverse=True)
    return Sums(first[kept], places_TP.flatten(), targets, weights_TP.flatten())
