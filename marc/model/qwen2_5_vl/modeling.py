"""Qwen2.5-VL that merges a video's frames between the vision tower and the language model.

The only changes to transformers' model: `get_video_features` compresses what the tower returns, and `get_rope_index`
gives the tokens that remain the positions of the places and times for which they stand. With compression off and no
frame times given, every call goes to the base class unchanged; only a video of more patches than ``tower_chunk`` is
read in several.

A video's plan (`marc.compression.plan`) is attached to its row of ``video_grid_thw``, as a `PlannedGrid`: that is
how it
travels through the base class's unmodified ``forward``.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLModel, Qwen2_5_VLPreTrainedModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import BaseModelOutputWithPooling

from marc.compression.config import CompressionConfig
from marc.compression.plan import VideoPlan, plan_video
from marc.model.qwen2_5_vl.config import MarcConfig
from marc.model.qwen2_5_vl.vision import Grid, compress_videos, frames_of, run_in_chunks, run_tower
from marc.model.segment_attention import SEGMENT_ATTENTION


class PlannedGrid(NamedTuple):
    """A row of ``video_grid_thw`` (temporal grids, height and width in patches) and what will become of that video.

    Attributes:
        plan: How the video is compressed; ``None`` leaves it as it is.
        frame_seconds: Time of each temporal grid; ``None``: evenly spaced by ``second_per_grid_ts``.
    """

    temporal: int
    height: int
    width: int
    plan: VideoPlan | None
    frame_seconds: Sequence[float] | None


@dataclass
class CompressedVideoFeatures(BaseModelOutputWithPooling):
    """Features of several videos.

    Attributes:
        pooler_output: One ``[N, D]`` tensor per video.
        members: For each compressed video, ``int64 [T]``: the merged frame in which each temporal grid ended.
    """

    members: tuple[Tensor | None, ...] | None = None


class MarcModel(Qwen2_5_VLModel):
    """Qwen2.5-VL without a head, with compressed videos."""

    config: MarcConfig
    config_class = MarcConfig

    def __init__(self, config: MarcConfig):
        super().__init__(config)
        if self.visual.config._attn_implementation == "sdpa":
            self.visual.config._attn_implementation = SEGMENT_ATTENTION

    def plan_grids(
        self,
        video_grid_thw: Tensor | list[PlannedGrid] | None,
        video_grid_events: Tensor | None = None,
        video_grid_seconds: Tensor | None = None,
        video_event_shares: Tensor | None = None,
    ) -> Tensor | list[PlannedGrid] | None:
        """Attaches its plan to every video's grid.

        Args:
            video_grid_thw: ``int [V, 3]`` in patches; a list that is already planned is returned as it is.
            video_grid_events: ``int [V, T]`` event id of each temporal grid, padded at the end.
            video_grid_seconds: ``float [V, T]`` time of each temporal grid, padded at the end.
            video_event_shares: ``int [V, E]`` tokens for each event, 0 beyond a video's events; a row of zeros: equal.

        Returns:
            The planned grids, or ``video_grid_thw`` itself where the base class can do all that is asked.
        """
        compression = self.config.compression
        assert isinstance(compression, CompressionConfig)
        if video_grid_thw is None or isinstance(video_grid_thw, list):
            return video_grid_thw
        if not compression.enabled and video_grid_seconds is None:
            return video_grid_thw
        merge = self.config.vision_config.spatial_merge_size
        grids = []
        for video, (frames, height, width) in enumerate(video_grid_thw.tolist()):
            plan = None
            if compression.enabled:
                events = None if video_grid_events is None else video_grid_events[video, :frames].tolist()
                shares = None if video_event_shares is None else _unpadded_shares(video_event_shares[video])
                grid = (height // merge, width // merge)
                plan = plan_video(frames, grid, compression, events=events, shares=shares)
            seconds = None if video_grid_seconds is None else video_grid_seconds[video, :frames].tolist()
            grids.append(PlannedGrid(frames, height, width, plan, seconds))
        return grids

    def forward(
        self,
        input_ids: Tensor | None = None,
        *args: Any,
        video_grid_thw: Tensor | list[PlannedGrid] | None = None,
        video_grid_events: Tensor | None = None,
        video_grid_seconds: Tensor | None = None,
        video_event_shares: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Plans the videos, then runs the base class (see `plan_grids` for the arguments)."""
        grids = self.plan_grids(video_grid_thw, video_grid_events, video_grid_seconds, video_event_shares)
        return super().forward(input_ids, *args, video_grid_thw=grids, **kwargs)

    def get_video_features(
        self,
        pixel_values_videos: Tensor,
        video_grid_thw: Tensor | list[PlannedGrid] | None = None,
        video_grid_events: Tensor | None = None,
        video_event_shares: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Runs the vision tower and merges each video's frames, inside the tower or after it.

        Returns:
            ``pooler_output`` holds one ``[N, D]`` tensor per video, N as its plan says.
        """
        compression = self.config.compression
        assert isinstance(compression, CompressionConfig)
        grids = self.plan_grids(video_grid_thw, video_grid_events, None, video_event_shares)
        if grids is None:
            return super().get_video_features(pixel_values_videos, grids, **kwargs)
        if not isinstance(grids, list):
            return self._every_token(pixel_values_videos, grids.tolist(), compression.tower_chunk, **kwargs)
        sizes = [grid[:3] for grid in grids]
        plans = [grid.plan for grid in grids if grid.plan is not None]
        if len(plans) < len(grids):
            return self._every_token(pixel_values_videos, sizes, compression.tower_chunk, **kwargs)
        seen = run_tower(
            self.visual,
            pixel_values_videos,
            sizes,
            plans,
            chunk=compression.tower_chunk,
            duplicates=compression.duplicates,
        )
        compressed = compress_videos(
            [video.tokens for video in seen],
            [plan.after_tower for plan in plans],
            [video.sizes for video in seen] if plans[0].tower else None,
        )
        return CompressedVideoFeatures(
            pooler_output=tuple(video.flat for video in compressed),
            members=tuple(after.members[inside.members] for after, inside in zip(compressed, seen, strict=True)),
        )

    def _every_token(
        self, pixels: Tensor, sizes: Sequence[Grid], chunk: int | None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Features of videos that are not compressed; in chunks, if they do not fit into one.

        Under ZeRO-3 in one: how many there are is each process's own affair, and it gathers the weights for each.
        """
        if chunk is None or len(pixels) <= chunk or is_deepspeed_zero3_enabled():
            grid_thw = torch.tensor(sizes, device=pixels.device)
            return super().get_video_features(pixels, grid_thw, **kwargs)
        frames = frames_of(pixels, sizes)
        tokens = run_in_chunks(self.visual, frames, [size[1:] for size in sizes], chunk)
        return BaseModelOutputWithPooling(pooler_output=tuple(video.flatten(0, 1) for video in tokens))

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
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Positions of all tokens; a video's tokens get the times of its plan (see `plan_grids` for the arguments).

        With planned videos, generated tokens go on right after the prompt's last one, as they do when prompt and
        completion are read in one pass. The base class continues after the largest position of all, which a long video
        reaches with its times; generation and log-probabilities would then disagree.

        Returns:
            ``int64 [3, B, L]`` positions and ``int64 [B, 1]`` offsets of generated tokens' positions from their index.
        """
        grids = self.plan_grids(video_grid_thw, video_grid_events, video_grid_seconds, video_event_shares)
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
        if isinstance(grids, list):
            present = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            last = (present * torch.arange(1, present.shape[1] + 1, device=present.device)).argmax(1, keepdim=True)
            deltas = positions[0].gather(1, last) + 1 - present.sum(1, keepdim=True)
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
        """Positions ``int64 [3, N]`` of one image or video.

        A frame that was pooled keeps, for each of its cells, the position of the place on which that cell is centred
        in the unpooled frame.
        """
        if not isinstance(grid_thw, PlannedGrid):
            return super().get_vision_position_ids(
                start_position, grid_thw, temp_merge_size, spatial_merge_size, time_interval, device
            )
        grid = (grid_thw.height // spatial_merge_size, grid_thw.width // spatial_merge_size)
        plan, seconds = grid_thw.plan, grid_thw.frame_seconds
        cells = plan.cells if plan else (grid,) * grid_thw.temporal
        if seconds is None:
            centers = plan.centers if plan else tuple(range(grid_thw.temporal))
            times = torch.tensor(centers) * float(time_interval)
        else:
            remaining = plan.seconds(seconds) if plan else seconds
            times = torch.tensor(remaining) * self.config.vision_config.tokens_per_second
        positions = [
            torch.cartesian_prod(time[None], _centers(grid[0], rows), _centers(grid[1], columns))
            for time, (rows, columns) in zip(times.long(), cells, strict=True)
        ]
        return torch.cat(positions).T.to(device) + start_position


class MarcForConditionalGeneration(Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL for video question answering from compressed videos.

    Besides the base class's inputs, ``forward`` and ``generate`` take ``video_grid_events``, ``video_grid_seconds``
    and ``video_event_shares`` (see `MarcModel.plan_grids`), all of which `MarcProcessor` makes.
    """

    config: MarcConfig
    config_class = MarcConfig

    def __init__(self, config: MarcConfig):
        # Not the direct base's __init__, which names its inner model's class.
        Qwen2_5_VLPreTrainedModel.__init__(self, config)
        self.model = MarcModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    @property
    def compression(self) -> CompressionConfig:
        """The options in force; assign to change them for the calls that follow."""
        assert isinstance(self.config.compression, CompressionConfig)
        return self.config.compression

    @compression.setter
    def compression(self, value: CompressionConfig) -> None:
        self.config.compression = value

    @torch.no_grad()
    def encode_video(
        self,
        pixel_values_videos: Tensor,
        video_grid_thw: Tensor,
        video_grid_events: Tensor | None = None,
        video_event_shares: Tensor | None = None,
        **_: Any,
    ) -> dict[str, CompressedVideoFeatures]:
        """Runs the vision tower and the compression once, for any number of questions.

        Pass the result as ``mm_encoder_outputs`` to ``forward`` or ``generate``, instead of ``pixel_values_videos``
        and beside the processor's other outputs. It is not changed by use.
        """
        features = self.model.get_video_features(
            pixel_values_videos, video_grid_thw, video_grid_events, video_event_shares
        )
        members = features.members if isinstance(features, CompressedVideoFeatures) else None
        return {"video": CompressedVideoFeatures(pooler_output=features.pooler_output, members=members)}

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        *args: Any,
        video_grid_events: Tensor | None = None,
        video_grid_seconds: Tensor | None = None,
        video_event_shares: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Keeps what plans are made from to a prefill with pixels: positions are known, and later so are features.

        From 5.20 on transformers takes all of it away itself, having encoded the videos before.
        """
        inputs = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        if inputs.get("pixel_values_videos") is None:
            return inputs | {"video_grid_thw": None}
        inputs["video_grid_events"] = video_grid_events
        inputs["video_grid_seconds"] = video_grid_seconds
        inputs["video_event_shares"] = video_event_shares
        return inputs

    def _expand_multimodal_outputs(
        self, input_ids: Tensor, mm_encoder_output: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Keeps the caller's features as they are: the base class writes into what it is given."""
        copies = {modality: copy(output) for modality, output in mm_encoder_output.items()}
        return super()._expand_multimodal_outputs(input_ids, copies, *args, **kwargs)


def _unpadded_shares(shares_E: Tensor) -> list[int] | None:
    return [share for share in shares_E.tolist() if share > 0] or None


def _centers(length: int, cells: int) -> Tensor:
    """Positions ``int64 [cells]`` of the centres of equal parts of ``length`` places."""
    return ((torch.arange(cells) * 2 + 1) * length) // (2 * cells)


for _ours, _base in ((MarcModel, Qwen2_5_VLModel), (MarcForConditionalGeneration, Qwen2_5_VLForConditionalGeneration)):
    register_checkpoint_conversion_mapping(
        _ours.__name__, get_checkpoint_conversion_mapping(_base.__name__), overwrite=True
    )
