"""Models that merge a video's grids between the vision tower and the language model: what all families share.

A family's own classes have one of these and transformers' class as bases, in this order, and add how the family
numbers positions. The only changes to transformers' model: `get_video_features` compresses what the tower returns, and
``get_rope_index`` gives the tokens that remain the positions of the places and times for which they stand. With
compression off and no times given, every call goes to the base class unchanged, but for a family's own rule of
positions; only a video of more patches than ``tower_chunk`` is read in several.

A video's plan (`marc.compression.plan`) is attached to its row of ``video_grid_thw``, as a `PlannedGrid`: that is how
it travels through the base class's unmodified ``forward``.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import partial
from math import prod
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import BaseModelOutputWithPooling

from marc.compression.config import CompressionConfig
from marc.compression.merge import compress_videos
from marc.compression.plan import VideoPlan, plan_video
from marc.model.family import Family, family_of, load_name
from marc.model.segment_attention import SEGMENT_ATTENTION
from marc.model.streams import VisualFeatures, apart, features_of_each
from marc.model.tower import GridThw, MergingTower, TowerOutput, run_in_chunks, split_videos

PLANNING = (
    "video_grid_events",
    "video_grid_seconds",
    "video_event_shares",
    "video_token_limits",
    "video_places",
)
"""What plans are made from beside the grids: arguments of `CompressedBaseModel.plan_grids`, in order."""


class PlannedGrid(NamedTuple):
    """A row of ``video_grid_thw`` (temporal grids, height and width in patches) and what will become of that video.

    Attributes:
        plan: How the video is compressed; ``None`` leaves it as it is.
        seconds: Time of each temporal grid; ``None``: evenly spaced by ``second_per_grid_ts``.
        places: Where the tokens stand that a rule kept (`marc.compression.rivals`), ``int64 [N]``; ``None``: where the
            plan says, or not known before the video is encoded.
    """

    temporal: int
    height: int
    width: int
    plan: VideoPlan | None
    seconds: Sequence[float] | None
    places: Tensor | None = None

    @property
    def kept_places(self) -> Tensor:
        """`places`, of a video whose tokens a rule keeps.

        Raises:
            ValueError: If it has not been encoded.
        """
        if self.places is None:
            raise ValueError(
                f"a video in the layout {self.plan and self.plan.rule} has no positions before it is encoded: call "
                "encode_video first, and pass what it returns as mm_encoder_outputs"
            )
        return self.places

    def plan_in_cells(self, merge: int) -> VideoPlan:
        """The plan, also of a video that is left as it is.

        Args:
            merge: Patches along each side of a cell.
        """
        return self.plan or VideoPlan.whole(self.temporal, (self.height // merge, self.width // merge))


class CompressedBaseModel(PreTrainedModel):
    """A model without a head, with compressed videos."""

    def __init__(self, config: Any):
        if config.vision_config._attn_implementation == SEGMENT_ATTENTION:  # as another model has left it
            config.vision_config._attn_implementation = "sdpa"
        super().__init__(config)
        if self.visual.config._attn_implementation == "sdpa":
            self.visual.config._attn_implementation = SEGMENT_ATTENTION

    def plan_grids(
        self,
        video_grid_thw: Tensor | list[PlannedGrid] | None,
        video_grid_events: Tensor | None = None,
        video_grid_seconds: Tensor | None = None,
        video_event_shares: Tensor | None = None,
        video_token_limits: Tensor | None = None,
        video_places: Tensor | None = None,
    ) -> Tensor | list[PlannedGrid] | None:
        """Attaches its plan to every video's grid.

        Args:
            video_grid_thw: ``int [V, 3]`` in patches; a list that is already planned is returned as it is.
            video_grid_events: ``int [V, T]`` event id of each temporal grid, padded at the end; ``None``: see
                `plan_video`.
            video_grid_seconds: ``float [V, T]`` time of each temporal grid, padded at the end.
            video_event_shares: ``int [V, E]`` tokens for each event, 0 beyond a video's events; a row of zeros: equal.
            video_token_limits: ``int [V, 2]`` visual tokens and grids for which the prompt has room.
            video_places: ``int [V, N]`` where the tokens stand that a rule kept, padded at the end.

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
        planned = []
        for video, (grids, height, width) in enumerate(video_grid_thw.tolist()):
            plan = None
            if compression.enabled:
                events = None if video_grid_events is None else video_grid_events[video, :grids].tolist()
                shares = None if video_event_shares is None else _unpadded_shares(video_event_shares[video])
                size = (height // merge, width // merge)
                limit = None if video_token_limits is None else tuple(video_token_limits[video].tolist())
                plan = plan_video(grids, size, compression, events=events, shares=shares, limit=limit)
            seconds = None if video_grid_seconds is None else video_grid_seconds[video, :grids].tolist()
            places = None if plan is None or video_places is None else video_places[video, : plan.tokens]
            planned.append(PlannedGrid(grids, height, width, plan, seconds, places))
        return planned

    def forward(
        self,
        input_ids: Tensor | None = None,
        *args: Any,
        video_grid_thw: Tensor | list[PlannedGrid] | None = None,
        video_grid_events: Tensor | None = None,
        video_grid_seconds: Tensor | None = None,
        video_event_shares: Tensor | None = None,
        video_token_limits: Tensor | None = None,
        video_places: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Plans the videos, then runs the base class (see `plan_grids` for the arguments)."""
        grids = self.plan_grids(
            video_grid_thw, video_grid_events, video_grid_seconds, video_event_shares, video_token_limits, video_places
        )
        if awaits_places(grids):
            kwargs, grids = self.encoded_first(kwargs, grids)
        is_shown = grids is not None or kwargs.get("image_grid_thw") is not None
        if is_shown and input_ids is not None and kwargs.get("mm_token_type_ids") is None:
            kwargs["mm_token_type_ids"] = token_types(input_ids, self)
        if kwargs.get("mm_encoder_outputs"):
            known = kwargs["mm_encoder_outputs"].items()
            kwargs["mm_encoder_outputs"] = {kind: self._streams_apart(output) for kind, output in known}
        return super().forward(input_ids, *args, video_grid_thw=grids, **kwargs)

    def encoded_first(
        self, kwargs: dict[str, Any], grids: list[PlannedGrid]
    ) -> tuple[dict[str, Any], list[PlannedGrid]]:
        """Encodes what is shown ahead of the base class, because positions follow from it.

        Args:
            kwargs: Of ``forward`` or ``generate``, with pixels or with ``mm_encoder_outputs``.
            grids: Planned.

        Returns:
            Both, with ``mm_encoder_outputs`` in place of pixels, and with places.
        """
        kwargs, known = dict(kwargs), dict(kwargs.get("mm_encoder_outputs") or {})
        pictures, videos = kwargs.pop("pixel_values", None), kwargs.pop("pixel_values_videos", None)
        if pictures is not None:
            known["image"] = self.get_image_features(pictures, kwargs.get("image_grid_thw"), return_dict=True)
        if videos is not None:
            known["video"] = self.get_video_features(videos, grids)
        places = getattr(known.get("video"), "places", None) or [None] * len(grids)
        grids = [grid._replace(places=own) for grid, own in zip(grids, places, strict=True)]
        return {**kwargs, "mm_encoder_outputs": known}, grids

    @property
    def stream_width(self) -> int:
        """Features of a visual token, of each of its streams (`marc.model.streams`)."""
        return int(self.config.get_text_config(decoder=True).hidden_size)

    def _streams_apart(self, output: Any) -> Any:
        """Features with their streams side by side as the base class takes them; others as they are."""
        features = getattr(output, "pooler_output", None)
        if features is None or all(each.shape[-1] == self.stream_width for each in features):
            return output
        return apart(features, self.stream_width)

    def get_video_features(
        self,
        pixel_values_videos: Tensor,
        video_grid_thw: Tensor | list[PlannedGrid] | None = None,
        video_grid_events: Tensor | None = None,
        video_event_shares: Tensor | None = None,
        video_token_limits: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Runs the vision tower and merges each video's grids, inside the tower or after it.

        Returns:
            Of each video N tokens, as its plan says.
        """
        compression = self.config.compression
        assert isinstance(compression, CompressionConfig)
        grids = self.plan_grids(video_grid_thw, video_grid_events, None, video_event_shares, video_token_limits)
        if grids is None:
            return super().get_video_features(pixel_values_videos, grids, **kwargs)
        if not isinstance(grids, list):
            return self._every_token(pixel_values_videos, grids.tolist(), compression.tower_chunk, **kwargs)
        sizes = [grid[:3] for grid in grids]
        plans = [grid.plan for grid in grids if grid.plan is not None]
        if len(plans) < len(grids):
            return self._every_token(pixel_values_videos, sizes, compression.tower_chunk, **kwargs)
        seen = self._seen(pixel_values_videos, sizes, plans)
        compressed = compress_videos(
            [video.tokens for video in seen],
            [plan.after_tower for plan in plans],
            [video.counts for video in seen] if plans[0].tower else None,
            decided_by=self.stream_width,
        )
        members = tuple(
            None if after.members is None else after.grid_of(inside.members)
            for after, inside in zip(compressed, seen, strict=True)
        )
        places = tuple(video.places for video in compressed)
        features = [video.flat for video in compressed]
        if compression.rule is not None:  # what a tower tells beside its tokens is more precise than these
            features = [each.to(self.visual.dtype) for each in features]
        return apart(features, self.stream_width, members=members, places=places)

    def _seen(self, pixels: Tensor, sizes: Sequence[GridThw], plans: Sequence[VideoPlan]) -> list[TowerOutput]:
        """What the tower gives of videos, with what their rule wants to know beside the tokens."""
        compression, family = self.config.compression, family_of(self)
        run = partial(
            MergingTower,
            cut=load_name(family.tower_part),
            chunk=compression.tower_chunk,
            duplicates=compression.duplicates,
        )
        rule, tower = compression.rule, self.visual
        if rule is None or not rule.wants_more:
            return run(tower)(pixels, sizes, plans)
        if not rule.merges_inside:
            return run(load_name(str(family.tower_with_attention))(tower))(pixels, sizes, plans)
        merging = load_name(str(family.tower_that_merges))
        return [
            run(merging(tower, -(-plan.tokens // plan.grids)))(own, [size], [plan])[0]
            for own, size, plan in zip(pixels.split([prod(size) for size in sizes]), sizes, plans, strict=True)
        ]

    def _every_token(
        self, pixels: Tensor, sizes: Sequence[GridThw], chunk: int | None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Features of videos that are not compressed; in chunks, if they do not fit into one.

        Under ZeRO-3 in one: how many there are is each process's own affair, and it gathers the weights for each.
        """
        if chunk is None or len(pixels) <= chunk or is_deepspeed_zero3_enabled():
            grid_thw = torch.tensor(sizes, device=pixels.device)
            return super().get_video_features(pixels, grid_thw, **kwargs)
        videos_TNC = split_videos(pixels, sizes)
        tokens = run_in_chunks(self.visual, videos_TNC, [size[1:] for size in sizes], chunk)
        return apart([video.flatten(0, 1) for video in tokens], self.stream_width)


class CompressedVLM(PreTrainedModel, GenerationMixin):
    """A model for video question answering from compressed videos.

    Besides the base class's inputs, ``forward`` and ``generate`` take ``video_grid_events``, ``video_grid_seconds``,
    ``video_event_shares`` and ``video_token_limits`` (see `CompressedBaseModel.plan_grids`): the processor makes them.
    """

    def __init__(self, config: Any):
        # Not the family's own __init__, which names its inner model's class.
        PreTrainedModel.__init__(self, config)
        text = config.get_text_config(decoder=True)
        self.model = family_of(config).ours.load("model")(config)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    @property
    def family(self) -> Family:
        """What depends on its family."""
        return family_of(self)

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
        video_token_limits: Tensor | None = None,
        **_: Any,
    ) -> dict[str, VisualFeatures]:
        """Runs the vision tower and the compression once, for any number of questions.

        Pass the result as ``mm_encoder_outputs`` to ``forward`` or ``generate``, instead of ``pixel_values_videos``
        and beside the processor's other outputs; for ``forward`` pictures must come encoded, too, as ``"image"``. It
        is not changed by use.
        """
        features = self.model.get_video_features(
            pixel_values_videos, video_grid_thw, video_grid_events, video_event_shares, video_token_limits
        )
        about: dict[str, Any] = {}
        if isinstance(features, VisualFeatures):
            about = {"members": features.members, "places": features.places}
        return {"video": apart(features_of_each(features), self.model.stream_width, **about)}

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        *args: Any,
        inputs_embeds: Tensor | None = None,
        video_grid_events: Tensor | None = None,
        video_grid_seconds: Tensor | None = None,
        video_event_shares: Tensor | None = None,
        video_token_limits: Tensor | None = None,
        video_places: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Keeps what plans are made from to a prefill with pixels: positions are known, and later so are features.

        From 5.20 on transformers takes all of it away itself, having encoded the videos before. It takes
        embeddings only where their name is among the arguments here.
        """
        inputs = super().prepare_inputs_for_generation(input_ids, *args, inputs_embeds=inputs_embeds, **kwargs)
        if inputs.get("pixel_values_videos") is None:
            return inputs | {"video_grid_thw": None}
        inputs["video_grid_events"] = video_grid_events
        inputs["video_grid_seconds"] = video_grid_seconds
        inputs["video_event_shares"] = video_event_shares
        inputs["video_token_limits"] = video_token_limits
        inputs["video_places"] = video_places
        return inputs

    def _prepare_position_ids_for_generation(self, inputs_tensor: Tensor, model_kwargs: dict[str, Any]) -> Any:
        """As the base class's, which numbers what is shown like text where nobody says which tokens show something.

        What stands at places that only its features tell is encoded before.
        """
        grids = model_kwargs.get("video_grid_thw")
        if self.compression.rule is not None:
            grids = self.model.plan_grids(grids, *map(model_kwargs.get, PLANNING))
        if awaits_places(grids):
            encoded, grids = self.model.encoded_first(model_kwargs, grids)
            for name in ("pixel_values", "pixel_values_videos"):
                model_kwargs.pop(name, None)
            model_kwargs.update(encoded)
            model_kwargs = {**model_kwargs, "video_grid_thw": grids}
        ids = model_kwargs.get("input_ids", inputs_tensor)
        if model_kwargs.get("mm_token_type_ids") is None and not ids.is_floating_point():
            model_kwargs = {**model_kwargs, "mm_token_type_ids": token_types(ids, self)}
        return super()._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)

    def _expand_multimodal_outputs(
        self, input_ids: Tensor, mm_encoder_output: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Keeps the caller's features as they are: the base class writes into what it is given."""
        copies = {modality: copy(output) for modality, output in mm_encoder_output.items()}
        without_levels = [each for each in copies.values() if getattr(each, "deepstack_features", None) == []]
        for each in without_levels:  # the base class looks at the first level
            each.deepstack_features = None
        expanded: dict[str, Any] = super()._expand_multimodal_outputs(input_ids, copies, *args, **kwargs)
        for each in without_levels:
            each.deepstack_features = []
        return expanded


def awaits_places(grids: Tensor | list[PlannedGrid] | None) -> TypeGuard[list[PlannedGrid]]:
    """Whether these are planned, and some video's tokens have no places before it is encoded."""
    return isinstance(grids, list) and any(each.plan and each.plan.rule and each.places is None for each in grids)


def token_types(input_ids: Tensor, model: Any) -> Tensor:
    """``mm_token_type_ids``: 1 for image tokens, 2 for video tokens, 0 for text."""
    return (input_ids == model.config.image_token_id).int() + 2 * (input_ids == model.config.video_token_id).int()


def offsets_after_prompts(positions: Tensor, present: Tensor) -> Tensor:
    """Offsets of generated tokens' positions from their index, so that they go on right after the prompt's last one.

    So they do when prompt and completion are read in one pass. transformers continues after the largest position of
    all, which a long video reaches with its times; generation and log-probabilities would then disagree.

    Args:
        positions: ``int64 [3, B, L]``.
        present: The attention mask, ``[B, L]``.

    Returns:
        ``int64 [B, 1]``.
    """
    last = (present * torch.arange(1, present.shape[1] + 1, device=present.device)).argmax(1, keepdim=True)
    return positions[0].gather(1, last) + 1 - present.sum(1, keepdim=True)


def load_weights_as(ours: type[PreTrainedModel], stock: type[PreTrainedModel]) -> None:
    """Has a class of ours find its weights in checkpoints by the names that the stock class knows.

    Without this, transformers leaves them at random and only logs it.
    """
    mapping = get_checkpoint_conversion_mapping(stock.__name__)
    if mapping is not None:
        register_checkpoint_conversion_mapping(ours.__name__, mapping, overwrite=True)


def _unpadded_shares(shares_E: Tensor) -> list[int] | None:
    return [share for share in shares_E.tolist() if share > 0] or None
