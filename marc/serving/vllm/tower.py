"""Encodes and merges videos with vLLM's vision tower as `marc.model.tower` does with transformers'.

vLLM's tower has transformers' blocks, weights and order of patches, other names for a few things, and takes lists.
`as_transformers` gives it transformers' manners; it is then taken apart and merged in by the same code.

Shapes: N patches, C numbers of a patch, M tokens that remain, W features of all streams of a token
(`marc.model.streams`).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from marc.compression.merge import compress_videos
from marc.inference.plan_record import PlanRecord
from marc.model.modeling import PlannedGrid
from marc.model.tower import CutTower, MergingTower, run_in_chunks, sharing, split_videos


def as_transformers(tower: nn.Module, kind: type[nn.Module]) -> Any:
    """A tower of vLLM's, sharing all weights, that can be called and taken apart like transformers'.

    Args:
        tower: vLLM's.
        kind: Its class with the manners, see `manners`.
    """
    return sharing(tower, kind)


def manners(tower: type) -> type[nn.Module]:
    """A class of vLLM's towers with what `marc.model.tower` asks for."""

    class Tower(tower):
        @property
        def config(self) -> Any:
            streams = 1 + len(getattr(self, "deepstack_visual_indexes", ()))  # which vLLM counts as one feature
            return SimpleNamespace(hidden_size=self.hidden_size, out_hidden_size=self.out_hidden_size // streams)

        @property
        def dtype(self) -> torch.dtype:
            return next(self.blocks.parameters()).dtype

        @property
        def device(self) -> torch.device:
            return next(self.blocks.parameters()).device

        def forward(self, x: Tensor, grid_thw: Tensor) -> Any:
            return SimpleNamespace(pooler_output=super().forward(x, grid_thw.tolist()))

    return Tower


def encode_video(tower: Any, cut: CutTower, pixels_NC: Tensor, grid: PlannedGrid, record: PlanRecord) -> Tensor:
    """Features of one video, ``[M, W]``; what comes out does not depend on others in the batch.

    Args:
        tower: From `as_transformers`.
        cut: Takes it apart.
        pixels_NC: Patches of the video.
        grid: Its grids and their plan.
        record: What the plan was made from.
    """
    options, size = record.compression, grid[:3]
    pixels_NC = pixels_NC.to(tower.device)
    if grid.plan is None:
        [tokens_TPD] = run_in_chunks(tower, split_videos(pixels_NC, [size]), [size[1:]], options.tower_chunk)
        return tokens_TPD.flatten(0, 1)
    merging = MergingTower(tower, cut, options.tower_chunk, options.duplicates)
    [seen] = merging(pixels_NC, [size], [grid.plan])
    counts = [seen.counts] if grid.plan.tower else None
    width = tower.config.out_hidden_size
    [compressed] = compress_videos([seen.tokens], [grid.plan.after_tower], counts, decided_by=width)
    return compressed.flat.to(tower.dtype)
