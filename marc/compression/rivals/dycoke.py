"""DyCoke, stage 1 (temporal token merging): one grid of every four whole, of the others what changed.

Source: Tao et al., arXiv 2411.15024; https://github.com/KD-TAO/DyCoke.

In windows of four grids the first is kept whole. The second is compared with the first, the fourth with the third,
then the third with the first: cell by cell, by cosine similarity. Of each the cells with the lowest similarity are
kept as they are; the others, which the earlier grid shows already, are dropped.

Differences: the authors prune every compared grid by the same rate, here the count is shared out equally among them,
to the last token. A count that does not pay for one grid of every four makes the windows longer, as long as it needs:
then grids at even places of a window are compared with its first, those at odd places with the grid before, which in
a window of four is the rule above. The authors' code compares the cells of a pair by the similarities of the pair
before, and leaves out the third grid of the last window; here both are as the paper says.
"""

from __future__ import annotations

import torch

from marc.compression.rivals.merging import as_they_are, cosines, in_float32
from marc.compression.rivals.rule import EncodedVideo, KeptTokens
from marc.compression.shares import level

WINDOW = 4


def keep(video: EncodedVideo, count: int) -> KeptTokens:
    """Keeps the first grid of each window, and of the others the cells that differ most from an earlier grid."""
    grids, cells, _ = video.tokens.shape
    window = next(length for length in range(WINDOW, grids + WINDOW) if -(-grids // length) * cells <= count)
    whole = range(0, grids, window)
    others = [grid for grid in range(grids) if grid % window]
    with torch.no_grad():
        tokens_TPD = in_float32(video.tokens)
        earlier = [grid - 1 if grid % window % 2 else grid - grid % window for grid in others]
        order_OP = cosines(tokens_TPD, others, earlier).argsort(dim=1, stable=True)
    left = count - len(whole) * cells
    tokens = level(left, len(others), cells) if others else []
    places = [torch.arange(cells, device=video.tokens.device) + grid * cells for grid in whole]
    places += [order_P[:own] + grid * cells for order_P, own, grid in zip(order_OP, tokens, others, strict=True)]
    return as_they_are(video, torch.cat(places))
