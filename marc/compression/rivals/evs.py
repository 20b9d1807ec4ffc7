"""Efficient Video Sampling (EVS): cells that changed since the grid before.

Source: Bagrov et al., arXiv 2510.14624, as vLLM has it (``--video-pruning-rate``).

``d[0, p] = 255`` and ``d[t, p] = 1 - cos(x[t, p], x[t - 1, p])``; the ``count`` cells with the largest d are kept as
they are, the earlier one of two that are equal. So the first grid is kept whole, and there is no smaller budget.

Differences: d is computed in float32, where vLLM computes it in the type of the features; the count is given, where
vLLM has a pruning rate.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from marc.compression.rivals.merging import as_they_are, cosines, in_float32
from marc.compression.rivals.rule import EncodedVideo, KeptTokens

FIRST = 255.0


def keep(video: EncodedVideo, count: int) -> KeptTokens:
    """Keeps the first grid and the cells of others that differ most from the same cell before."""
    with torch.no_grad():
        tokens_TPD = in_float32(video.tokens)
        grids = range(len(tokens_TPD))
        change_TP = F.pad(1 - cosines(tokens_TPD, grids[1:], grids[:-1]), (0, 0, 1, 0), value=FIRST)
        order = change_TP.flatten().argsort(descending=True, stable=True)
    return as_they_are(video, order[:count])
