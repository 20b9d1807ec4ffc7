"""Families that write times into the prompt: what they share.

A video is one block a temporal grid, ``<12.5 seconds><|vision_start|>`` its placeholders ``<|vision_end|>``, and each
block is numbered like a picture: all its tokens at one time, text going on after its larger side. So a merged grid is
a block that says its mean time, and one that was pooled is a smaller picture. Nothing of a video's times is left to
the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature

from marc.compression.cells import Cells, Uneven, token_count
from marc.compression.positions import block_positions
from marc.model.modeling import CompressedBaseModel, PlannedGrid
from marc.model.processing import CompressedProcessor


class TimestampedModel(CompressedBaseModel):
    """A `CompressedBaseModel` whose family writes times into the prompt."""

    def get_rope_index(
        self,
        input_ids: Tensor,
        mm_token_type_ids: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        video_grid_thw: Tensor | list[PlannedGrid] | None = None,
        attention_mask: Tensor | None = None,
        video_grid_events: Tensor | None = None,
        video_event_shares: Tensor | None = None,
        video_token_limits: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Positions of all tokens: the base class is told of each block that remains (see `plan_grids`).

        Returns:
            ``int64 [3, B, L]`` positions and ``int64 [B, 1]`` offsets of generated tokens' positions from their index.
        """
        grids = self.plan_grids(video_grid_thw, video_grid_events, None, video_event_shares, video_token_limits)
        positions: tuple[Tensor, Tensor] = super().get_rope_index(
            input_ids,
            mm_token_type_ids,
            image_grid_thw=image_grid_thw,
            video_grid_thw=self._blocks(grids) if isinstance(grids, list) else grids,
            attention_mask=attention_mask,
            **kwargs,
        )
        return positions

    def get_vision_position_ids(self, start_position: int, grid_thw: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Positions of a picture or a block; that of a video's block has its own rule where it is divided unevenly."""
        if len(grid_thw) == 3 or not grid_thw[3]:
            stock: Tensor = super().get_vision_position_ids(start_position, grid_thw[:3], *args, **kwargs)
            return stock
        merge = self.config.vision_config.spatial_merge_size
        _, height, width, longer = grid_thw.tolist()
        positions = block_positions(Uneven(height // merge, width // merge, longer))
        return positions.to(kwargs.get("device")) + start_position

    def _blocks(self, grids: Sequence[PlannedGrid]) -> Tensor:
        """The grids that remain of videos, each as a video of its own.

        Returns:
            ``int64 [blocks, 4]``: one, height and width in patches, and `Uneven.longer`, 0 for an even one.
        """
        merge = self.config.vision_config.spatial_merge_size
        cells = [each for grid in grids for each in grid.plan_in_cells(merge).cells]
        longer = [each.longer if isinstance(each, Uneven) else 0 for each in cells]
        sides = [[1, each[0] * merge, each[1] * merge] for each in cells]
        return torch.tensor([[*each, more] for each, more in zip(sides, longer, strict=True)])


class TimestampedProcessor(CompressedProcessor):
    """A `CompressedProcessor` whose family writes times into the prompt."""

    vision_start_token: str
    vision_end_token: str
    video_token: str

    def video_text(self, cells: Sequence[Cells], seconds: Sequence[float] | None) -> str:
        """A block for every grid that remains."""
        assert seconds is not None, "the prompt says the time of every grid"
        start, end = self.vision_start_token, self.vision_end_token
        return "".join(
            f"<{time:.1f} seconds>{start}{self.video_token * token_count(each)}{end}"
            for time, each in zip(seconds, cells, strict=True)
        )

    def grid_seconds(self, frame_seconds: Sequence[float]) -> tuple[float, ...]:
        """Mean time of each temporal grid's first and last frame."""
        frames = self.family.frames_per_grid
        firsts, lasts = frame_seconds[::frames], frame_seconds[frames - 1 :: frames]
        return tuple((first + last) / 2 for first, last in zip(firsts, lasts, strict=True))

    @property
    def frame_pixels(self) -> int:
        """Most pixels of a frame: the video processor's limits on sizes are those of a whole video."""
        return int(self.video_processor.max_video_tokens * self.cell_pixels**2)

    def _sampled_seconds(self, processed: BatchFeature, video: int) -> Sequence[float] | None:
        metadata = processed["video_metadata"][video]
        times: list[float] = self._calculate_timestamps(
            list(metadata.frames_indices), metadata.fps, self.video_processor.temporal_patch_size
        )
        return times
