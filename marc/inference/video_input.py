"""What a model sees of a video or picture, in one record from the file to the language model.

`VisualPatches` is what the vision tower reads, whatever will remain of it. `VideoInput` is what the language model
reads of that at one budget: its plan, made before anything is encoded, and its features once it is. Inference and
training use the same records, so that a video is planned, counted, dated and encoded alike in both.

Shapes: N patches, C numbers of a patch, T temporal grids, P tokens of a grid, M visual tokens that remain, W features
of all streams of a token (`marc.model.streams`).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from marc.compression import CompressionConfig, VideoPlan
from marc.compression.plan import event_ids
from marc.model import CompressedProcessor
from marc.model.processing import frame_patches
from marc.types import FRAMES_PER_GRID, VISION_MARKS, Frames

KINDS = ("video", "image")


@dataclass(eq=False)
class VisualPatches:
    """One video or image as the vision tower reads it.

    Attributes:
        kind: ``"video"`` or ``"image"``.
        grid_thw: Temporal grids, height and width in patches.
        merge: Patches along each side of a visual token.
        source: The file, for messages.
        frame_seconds: Time of each frame of a video, `FRAMES_PER_GRID` for each temporal grid.
        events: Event id of each temporal grid of a video; None: not segmented.
        pixels: Patches, ``[N, C]``; None where only the size is known, or ``tower`` has replaced them.
        tower: ``[T * P, W]``, every token of a tower that is not trained: encoded once.
        inputs: What the model sees of it at the budgets that have come up.
    """

    kind: str
    grid_thw: tuple[int, int, int]
    merge: int
    source: str = ""
    frame_seconds: tuple[float, ...] = ()
    events: tuple[int, ...] | None = None
    pixels: Tensor | None = None
    tower: Tensor | None = None
    inputs: dict[CompressionConfig, VideoInput] = field(default_factory=dict, repr=False)

    @classmethod
    def of_frames(cls, processor: CompressedProcessor, frames: Frames, events: Sequence[int] | None) -> VisualPatches:
        """A video's frames, read at their final size.

        Args:
            processor: The model's.
            frames: An even number of them.
            events: Event id of each temporal grid; None: not segmented.
        """
        pixels, grid_thw = frame_patches(processor.video_processor, frames.rgb)
        grids, height, width = grid_thw[0].tolist()
        return cls(
            "video",
            (grids, height, width),
            processor.video_processor.merge_size,
            frames.source,
            tuple(frames.seconds.tolist()),
            None if events is None else tuple(events),
            pixels,
        )

    @classmethod
    def of_picture(cls, processor: CompressedProcessor, picture: Any, source: str) -> VisualPatches:
        """A ``PIL.Image``, read at its final size."""
        processed = processor.image_processor([picture], do_resize=False, return_tensors="pt")
        temporal, height, width = processed["image_grid_thw"][0].tolist()
        merge = processor.image_processor.merge_size
        return cls("image", (temporal, height, width), merge, source, pixels=processed["pixel_values"])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a temporal grid in visual tokens."""
        return self.grid_thw[1] // self.merge, self.grid_thw[2] // self.merge

    @property
    def tokens(self) -> int:
        """Visual tokens without compression."""
        return self.grid_thw[0] * self.size[0] * self.size[1]


@dataclass(eq=False)
class VideoInput:
    """A video or image as the model sees it at one budget.

    Attributes:
        patches: What was read.
        compression: The budget.
        plan: What becomes of a video; None: every token remains.
        events: Event id of each temporal grid of a video.
        shares: Tokens of each event; None: equal ones.
        seconds: Time of each temporal grid of a video.
        tokens: Visual tokens that the language model reads; 0 of a dummy.
        ids: What it reads in place of the prompt's placeholder: these, and what the family writes between them.
        features: ``[M, W]``, once encoded by a tower that is not trained.
        members: The merged grid in which each temporal grid ended, ``int64 [T]``, once encoded; None: each by itself.
        places: Where tokens stand that a rule chose (`marc.compression.rivals`), ``int64 [M]``, once encoded.
    """

    patches: VisualPatches
    compression: CompressionConfig
    plan: VideoPlan | None
    events: tuple[int, ...]
    shares: tuple[int, ...] | None
    seconds: tuple[float, ...]
    tokens: int
    ids: tuple[int, ...]
    features: Tensor | None = None
    members: Tensor | None = None
    places: Tensor | None = None

    @classmethod
    def of(
        cls,
        patches: VisualPatches,
        processor: CompressedProcessor,
        compression: CompressionConfig,
        *,
        shares: tuple[int, ...] | None = None,
    ) -> VideoInput:
        """Plans what remains of a video or image at a budget.

        Args:
            patches: What was read of it.
            processor: The model's: it writes videos into prompts.
            compression: The budget.
            shares: Tokens for each event, see `marc.compression.plan_video`.
        """
        if patches.kind == "image":
            ids = (processor.image_token_id,) * patches.tokens
            return cls(patches, compression, None, (), None, (), patches.tokens, ids)
        grids, seconds = patches.grid_thw[0], processor.grid_seconds(patches.frame_seconds)
        events = tuple(event_ids(grids, compression, patches.events))
        remains = processor.plan(patches.grid_thw, compression, events=events, shares=shares, seconds=seconds)
        plan, shares = (remains, shares) if compression.enabled else (None, None)
        ids = tuple(processor.video_ids(remains.cells, remains.seconds(seconds)))
        return cls(patches, compression, plan, events, shares, seconds, remains.tokens, ids)

    @classmethod
    def every_token(cls, patches: VisualPatches, compression: CompressionConfig) -> VideoInput:
        """A video or image to be encoded whole, whatever is read of it later: it stands in no prompt."""
        events = tuple(event_ids(patches.grid_thw[0], compression, patches.events))
        return cls(patches, every_token(compression), None, events, None, (), patches.tokens, ())

    @classmethod
    def dummy(cls, kind: str, processor: CompressedProcessor, compression: CompressionConfig) -> VideoInput:
        """A smallest video or image, of which the language model reads nothing.

        Processes that train together must run the same modules and have gradients for the same weights. One that has
        no video where another has one encodes this in its place: features ``[0, W]``, and gradients of zero.
        """
        side, patch = processor.video_processor.merge_size, processor.video_processor.patch_size
        pixels = torch.zeros(side**2, FRAMES_PER_GRID * 3 * patch**2)
        smallest = VisualPatches(kind, (1, side, side), side, frame_seconds=(0.0,) * FRAMES_PER_GRID, pixels=pixels)
        return replace(cls.of(smallest, processor, compression), tokens=0, ids=())

    @property
    def kind(self) -> str:
        """``"video"`` or ``"image"``."""
        return self.patches.kind

    @property
    def prompt_tokens(self) -> int:
        """What it costs in the prompt, with the marks around it."""
        return len(self.ids) + VISION_MARKS

    @property
    def has_its_own_tower(self) -> bool:
        """Whether grids merge inside the tower, or more is wanted of it than tokens: it runs for this input alone."""
        if self.plan is None:
            return False
        return bool(self.plan.tower) or (self.compression.rule is not None and self.compression.rule.wants_more)

    @property
    def grid_groups(self) -> tuple[int, ...]:
        """The merged grid in which each temporal grid ended; -1 of one of which no token was kept."""
        grids, (height, width) = range(self.patches.grid_thw[0]), self.patches.size
        if self.members is not None:
            return tuple(self.members.tolist())
        if self.places is None:
            return tuple(grids)
        kept = {place // (height * width) for place in self.places.tolist()}
        return tuple(grid if grid in kept else -1 for grid in grids)

    @property
    def is_known(self) -> bool:
        """Whether a tower that keeps its weights has nothing more to do for it."""
        return self.features is not None or (self.patches.tower is not None and not self.has_its_own_tower)


def shuffled_grids(patches: VisualPatches, draw: str) -> VisualPatches:
    """A video whose temporal grids stand in a drawn order, each still of two frames.

    Times and events keep their places. What a tower that is not trained has read of the video is put in the same
    order: grids do not see each other there.

    Args:
        patches: Of a video; an image stays as it is.
        draw: What the order follows from.
    """
    if patches.kind != "video":
        return patches
    order = list(range(patches.grid_thw[0]))
    random.Random(draw).shuffle(order)
    pixels, tower = (
        None if value is None else value.unflatten(0, (len(order), -1))[order].flatten(0, 1)
        for value in (patches.pixels, patches.tower)
    )
    return replace(patches, pixels=pixels, tower=tower, inputs={})


def inputs_at(
    rows: Iterable[Iterable[VisualPatches]], processor: CompressedProcessor, compression: CompressionConfig
) -> list[tuple[VideoInput, ...]]:
    """One input of each distinct file, shared by the rows that share it and for as long as its patches are kept."""
    return [tuple(_input_at(patches, processor, compression) for patches in row) for row in rows]


def _input_at(patches: VisualPatches, processor: CompressedProcessor, compression: CompressionConfig) -> VideoInput:
    if compression not in patches.inputs:
        patches.inputs[compression] = VideoInput.of(patches, processor, compression)
    return patches.inputs[compression]


@contextmanager
def at_compression(model: Any, compression: CompressionConfig) -> Iterator[None]:
    """Runs a model at a budget: positions and the number of visual tokens follow from it."""
    before, model.compression = model.compression, compression
    try:
        yield
    finally:
        model.compression = before


def every_token(compression: CompressionConfig) -> CompressionConfig:
    """The budget of the full-frame teacher: nothing is merged."""
    return replace(compression, target_frames=None)


def grid_inputs(rows: Sequence[Sequence[VideoInput]]) -> dict[str, Tensor]:
    """What the model is told of the visuals of a batch beside their features: grids, events, shares, times.

    Times are always given, so that positions agree between generation and log-probabilities.
    """
    inputs: dict[str, Tensor] = {}
    if videos := _of_kind(rows, "video"):
        assert len({video.compression for video in videos}) == 1, "one call of the model has one budget"
        inputs["video_grid_thw"] = torch.tensor([video.patches.grid_thw for video in videos])
        inputs["video_grid_seconds"] = padded([video.seconds for video in videos], torch.float64)
        inputs |= _planning_inputs(videos)
    if images := _of_kind(rows, "image"):
        inputs["image_grid_thw"] = torch.tensor([image.patches.grid_thw for image in images])
    return inputs


def _planning_inputs(videos: Sequence[VideoInput]) -> dict[str, Tensor]:
    """What plans of compressed videos are made from, one padded row each."""
    if videos[0].plan is None:
        return {}
    inputs = {"video_grid_events": padded([video.events for video in videos], torch.long)}
    if any(video.shares for video in videos):
        inputs["video_event_shares"] = padded([video.shares or () for video in videos], torch.long)
    if videos[0].compression.prompt_tokens is not None:
        inputs["video_token_limits"] = torch.tensor(
            [(video.plan.budget, video.plan.most_grids) for video in videos if video.plan]
        )
    if all(video.places is not None for video in videos):
        inputs["video_places"] = padded([video.places.tolist() for video in videos], torch.long)  # type: ignore[union-attr]
    return inputs


def feature_inputs(
    rows: Sequence[Sequence[VideoInput]], features: Mapping[VideoInput, Tensor]
) -> dict[str, BaseModelOutputWithPooling]:
    """``mm_encoder_outputs`` of a batch: the features of each row's visuals, repeated where rows share them."""
    return {
        kind: BaseModelOutputWithPooling(pooler_output=tuple(features[each] for each in chosen))
        for kind in KINDS
        if (chosen := _of_kind(rows, kind))
    }


def padded(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> Tensor:
    """Stacks rows of unequal length, with zeros at their ends."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], dtype=dtype)


def _of_kind(rows: Sequence[Sequence[VideoInput]], kind: str) -> list[VideoInput]:
    return [each for row in rows for each in row if each.kind == kind]
