"""Qwen2.5-VL with compressed videos: its positions, whose temporal axis counts seconds.

transformers 5 lets the text behind a video go on after the larger side of its grid, whatever its times: after a minute
the question stands in the first seconds. Qwen trained it after all of the video; `MarcConfig.text_after_video` says
which of the two a checkpoint knows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLModel

from marc.compression.positions import kept_positions, published_text_positions, video_positions
from marc.model.modeling import (
    CompressedBaseModel,
    CompressedVLM,
    PlannedGrid,
    load_weights_as,
    offsets_after_prompts,
)
from marc.model.qwen2_5_vl.config import MarcConfig


class MarcModel(CompressedBaseModel, Qwen2_5_VLModel):
    """Qwen2.5-VL without a head, with compressed videos."""

    config: MarcConfig
    config_class = MarcConfig

    def get_rope_index(
        self,
        input_ids: Tensor,
        mm_token_type_ids: Tensor,
        image_grid_thw: Tensor | None = None,
        video_grid_thw: Tensor | list[PlannedGrid] | None = None,
        second_per_grid_ts: Tensor | list[float] | None = None,
        attention_mask: Tensor | None = None,
        video_grid_events: Tensor | None = None,
        video_grid_seconds: Tensor | None = None,
        video_event_shares: Tensor | None = None,
        video_token_limits: Tensor | None = None,
        video_places: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Positions of all tokens; a video's tokens get the times of its plan (see `plan_grids` for the arguments).

        Returns:
            ``int64 [3, B, L]`` positions and ``int64 [B, 1]`` offsets of generated tokens' positions from their index:
            after the largest of the prompt, as transformers has it; where planned videos may reach beyond the text
            behind them (``grid``), those of `offsets_after_prompts`.
        """
        grids = self.plan_grids(
            video_grid_thw, video_grid_events, video_grid_seconds, video_event_shares, video_token_limits, video_places
        )
        if second_per_grid_ts is None and grids is not None:
            # The base class has as many by default as the sequence has tokens, which many short prompts outnumber.
            second_per_grid_ts = [1.0] * len(grids)
        positions, deltas = super().get_rope_index(
            input_ids,
            mm_token_type_ids,
            image_grid_thw=image_grid_thw,
            video_grid_thw=grids,
            second_per_grid_ts=second_per_grid_ts,
            attention_mask=attention_mask,
            **kwargs,
        )
        present = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if self.config.text_after_video == "published":
            positions = published_text_positions(positions, mm_token_type_ids, present)
            deltas = positions.amax((0, 2))[:, None] + 1 - present.sum(1, keepdim=True)
        elif isinstance(grids, list):
            deltas = offsets_after_prompts(positions, present)
        return positions, deltas

    def get_vision_position_ids(
        self,
        start_position: int,
        grid_thw: Tensor | PlannedGrid,
        temp_merge_size: int = 1,
        spatial_merge_size: int = 1,
        time_interval: float | Tensor = 1.0,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Positions ``int64 [3, N]`` of one image or video, see `video_positions`."""
        if not isinstance(grid_thw, PlannedGrid):
            return super().get_vision_position_ids(
                start_position, grid_thw, temp_merge_size, spatial_merge_size, time_interval, device
            )
        plan = grid_thw.plan_in_cells(spatial_merge_size)
        seconds: Any = grid_thw.seconds
        rate = self.config.vision_config.tokens_per_second
        if seconds is None:
            seconds, rate = float(time_interval), 1
        if plan.rule is None:
            positions = video_positions(plan, seconds, tokens_per_second=rate)
        else:
            positions = kept_positions(grid_thw.kept_places, plan.size, seconds, tokens_per_second=rate)
        return positions.to(device) + start_position


class MarcForConditionalGeneration(CompressedVLM, Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL for video question answering from compressed videos; see `CompressedVLM`."""

    config: MarcConfig
    config_class = MarcConfig


load_weights_as(MarcModel, Qwen2_5_VLModel)
load_weights_as(MarcForConditionalGeneration, Qwen2_5_VLForConditionalGeneration)
