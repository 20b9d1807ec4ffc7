"""VidCom2 (Video Compression Commander): cells unlike the mean of the video and of their grid, more of unusual grids.

Source: Liu et al., arXiv 2505.14454; https://github.com/xuyang-liu16/VidCom2; the exact count as vLLM has it.

1. Of the D channels the half with the lowest variance over the video remains; each token is divided by its length.
2. ``s(x, c) = sum_k exp(-|x - c|^2 / (2 * 2^k))`` for k from -3 to 1 is the similarity to a centre: the mean of the
   video (``s_v``) and of the grid (``s_g``).
3. With ``R = count / (T P)`` a grid has ``R (1 + softmax(-mean_p s_v / 0.01)_t - 1 / T)`` of its cells, rounded, at
   least one and at most all: those with the smallest ``s_v + s_g``.
4. What rounding leaves over is given to, or taken from, the cells of the whole video in order of ``s_v + s_g``.

Differences: float32 throughout. The authors stop after step 3 and so meet no count exactly; step 4 is vLLM's, where a
grid may lose its last token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from marc.compression.rivals.merging import as_they_are, in_float32
from marc.compression.rivals.rule import EncodedVideo, KeptTokens

BANDWIDTHS = tuple(2.0**k for k in range(-3, 2))
CHANNELS = 0.5
TEMPERATURE = 0.01


def keep(video: EncodedVideo, count: int) -> KeptTokens:
    """Keeps the cells that are least like the rest."""
    with torch.no_grad():
        likeness_TP, of_video_T = _likeness(in_float32(video.tokens))
        rank_TP = likeness_TP.argsort(dim=1, stable=True).argsort(dim=1)
        left_out = (rank_TP >= _cells_of_grids(of_video_T, video, count)[:, None]).flatten()
        order = likeness_TP.flatten().argsort(stable=True)
        order = order[left_out[order].long().argsort(stable=True)]
    return as_they_are(video, order[:count])


def _likeness(tokens_TPD: Tensor) -> tuple[Tensor, Tensor]:
    """``s_v + s_g`` of every cell, ``[T, P]``, and the mean ``s_v`` of each grid, ``[T]``."""
    mean_D = tokens_TPD.mean(dim=(0, 1))
    spread_D = torch.stack([(grid_PD - mean_D).square().sum(dim=0) for grid_PD in tokens_TPD]).sum(dim=0)
    quiet = spread_D.topk(max(1, int(CHANNELS * len(spread_D))), largest=False).indices
    tokens_TPC = torch.stack([F.normalize(grid_PD[:, quiet], dim=-1) for grid_PD in tokens_TPD])
    of_video_TP = _kernels(tokens_TPC, tokens_TPC.mean(dim=(0, 1)).expand(len(tokens_TPC), -1))
    of_grid_TP = _kernels(tokens_TPC, tokens_TPC.mean(dim=1))
    return of_video_TP + of_grid_TP, of_video_TP.mean(dim=1)


def _kernels(tokens_TPC: Tensor, centre_TC: Tensor) -> Tensor:
    distance_TP = torch.stack([(grid - own).square().sum(-1) for grid, own in zip(tokens_TPC, centre_TC, strict=True)])
    return sum((torch.exp(-distance_TP / (2 * width)) for width in BANDWIDTHS), torch.zeros_like(distance_TP))


def _cells_of_grids(likeness_T: Tensor, video: EncodedVideo, count: int) -> Tensor:
    """How many cells each grid has in step 3, ``[T]``."""
    grids, cells, _ = video.tokens.shape
    unusual_T = (-likeness_T / TEMPERATURE).softmax(dim=0)
    shares_T = count / (grids * cells) * (1 + unusual_T - unusual_T.mean())
    return (shares_T.clamp(max=1) * cells).round().long().clamp(1, cells)
