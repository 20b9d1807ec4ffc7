"""Videos and images of prompts: found in the messages, seen at a budget, encoded once, handed to the model.

A prompt names its files: ``{"type": "video", "video": path, "cuts": [seconds]}`` (``cuts``, where events begin, is
optional) or ``{"type": "image", "image": path}``. `marc.training.reader` reads them; a `View` is what the model
sees of one at a budget, planned exactly as at inference. The times of frames are always given, so that positions agree
between generation and log-probabilities.

Shapes: T temporal grids, P tokens of a grid, M visual tokens that remain, D channels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from marc.compression.plan import VideoPlan, plan_video
from marc.model import CompressionConfig, MarcForConditionalGeneration, MarcProcessor
from marc.model.qwen2_5_vl.vision import compress_videos
from marc.training.reader import Visual, VisualReader, VisualSource
from marc.types import FRAMES_PER_GRID

KINDS = ("video", "image")
Messages = Sequence[Mapping[str, Any]]
"""A chat."""


@dataclass(eq=False)
class View:
    """A video or image as the model sees it at one budget.

    Attributes:
        visual: What was read.
        compression: The budget.
        plan: What becomes of a video; None: every token remains.
        events: Event id of each temporal grid of a video.
        tokens: Visual tokens that the language model reads; 0 of a stand-in.
        features: ``[M, D]`` from a tower that is not trained: encoded once.
    """

    visual: Visual
    compression: CompressionConfig
    plan: VideoPlan | None
    events: tuple[int, ...]
    tokens: int
    features: Tensor | None = None

    @property
    def kind(self) -> str:
        """``"video"`` or ``"image"``."""
        return self.visual.kind

    @classmethod
    def of(cls, visual: Visual, compression: CompressionConfig) -> View:
        """Plans what remains of a visual; without cuts each grid is an event in the event layout, else all are one."""
        grids, height, width = visual.grid_thw
        cells = (height // visual.merge, width // visual.merge)
        whole = grids * cells[0] * cells[1]
        if visual.kind == "image":
            return cls(visual, compression, None, (), whole)
        own = tuple(range(grids)) if compression.layout == "events" else (0,) * grids
        events = own if visual.events is None else visual.events
        plan = plan_video(grids, cells, compression, events=events) if compression.enabled else None
        return cls(visual, compression, plan, events, whole if plan is None else plan.tokens)

    @classmethod
    def stand_in(cls, kind: str, processor: MarcProcessor, compression: CompressionConfig) -> View:
        """A smallest video or image, of which the language model reads nothing.

        Processes that train together must run the same modules and have gradients for the same weights. One that has
        no video where another has one encodes this in its place: features ``[0, D]``, and gradients of zero.
        """
        side, patch = processor.video_processor.merge_size, processor.video_processor.patch_size
        pixels = torch.zeros(side**2, FRAMES_PER_GRID * 3 * patch**2)
        smallest = Visual(kind, (1, side, side), side, seconds=(0.0,), pixels=pixels)
        return replace(cls.of(smallest, compression), tokens=0)

    @property
    def inside_tower(self) -> bool:
        """Whether frames merge inside the tower, which then runs for this view alone."""
        return self.plan is not None and bool(self.plan.tower)

    @property
    def is_known(self) -> bool:
        """Whether a tower that keeps its weights has nothing more to do for it."""
        return self.features is not None or (self.visual.tower is not None and not self.inside_tower)


def views_of(rows: Sequence[Sequence[Visual]], compression: CompressionConfig) -> list[tuple[View, ...]]:
    """One view of each distinct visual, shared by the rows that share it and for as long as the visual is kept."""
    for visual in {visual for row in rows for visual in row}:
        if compression not in visual.views:
            visual.views[compression] = View.of(visual, compression)
    return [tuple(visual.views[compression] for visual in row) for row in rows]


@contextmanager
def at_compression(model: MarcForConditionalGeneration, compression: CompressionConfig) -> Iterator[None]:
    """Runs the model at a budget: positions and the number of visual tokens follow from it."""
    before, model.compression = model.compression, compression
    try:
        yield
    finally:
        model.compression = before


def every_token(compression: CompressionConfig) -> CompressionConfig:
    """The budget of the full-frame teacher: nothing is merged."""
    return replace(compression, target_frames=None)


def clean_messages(messages: Messages) -> list[dict[str, Any]]:
    """Messages without the empty fields that Arrow adds to parts of other types, which templates would render."""
    return [
        {
            **message,
            "content": message["content"]
            if isinstance(message["content"], str)
            else [{key: value for key, value in part.items() if value is not None} for part in message["content"]],
        }
        for message in messages
    ]


def visual_sources(messages: Messages | str) -> list[VisualSource]:
    """The files that a prompt names, in order; a plain text names none."""
    if isinstance(messages, str):
        return []
    sources = []
    for message in clean_messages(messages):
        parts = [] if isinstance(message["content"], str) else message["content"]
        for part in parts:
            path = part.get(part["type"])
            if part["type"] in ("video", "image") and isinstance(path, str):
                cuts = part.get("cuts")
                sources.append(VisualSource(part["type"], path, None if cuts is None else tuple(cuts)))
    return sources


def readable(messages: Messages | str) -> str:
    """A prompt as one text, for tables: files stand in brackets."""
    if isinstance(messages, str):
        return messages
    turns = []
    for message in clean_messages(messages):
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts = [part["text"] if part["type"] == "text" else f"[{part[part['type']]}]" for part in parts]
        turns.append(f"{message['role']}: {' '.join(texts)}")
    return "\n".join(turns)


def without_visuals(messages: Messages) -> list[dict[str, Any]]:
    """The prompt without its videos and images."""
    return [
        {**message, "content": message["content"]}
        if isinstance(message["content"], str)
        else {**message, "content": [part for part in message["content"] if part["type"] == "text"]}
        for message in clean_messages(messages)
    ]


def tokenize_prompt(
    processor: MarcProcessor, messages: Messages | str, visual_tokens: Sequence[int], **template: Any
) -> list[int]:
    """Token ids of a prompt whose placeholders are expanded to ``visual_tokens``, one number per file in order.

    A plain text is taken as it is, without the chat template.
    """
    ids: list[int]
    if isinstance(messages, str):
        ids = processor.tokenizer(messages)["input_ids"]
        return ids
    text = processor.apply_chat_template(
        clean_messages(messages), add_generation_prompt=True, tokenize=False, **template
    )
    counts = iter(visual_tokens)
    placeholder = f"{re.escape(processor.video_token)}|{re.escape(processor.image_token)}"
    expanded = re.sub(placeholder, lambda match: match[0] * next(counts), text)
    assert next(counts, None) is None, "the chat template left a video or image out"
    ids = processor.tokenizer(expanded, add_special_tokens=False)["input_ids"]
    return ids


def expand_placeholders(
    ids: Sequence[int], visual_tokens: Sequence[int], model: MarcForConditionalGeneration
) -> list[int]:
    """Token ids with each single placeholder repeated as often as its file has visual tokens, in order."""
    counts = iter(visual_tokens)
    placeholders = (model.config.image_token_id, model.config.video_token_id)
    expanded: list[int] = []
    for token in ids:
        expanded += [token] * (next(counts) if token in placeholders else 1)
    assert next(counts, None) is None, "fewer placeholders than files"
    return expanded


def prompt_length(reader: VisualReader, messages: Messages | str, budgets: Sequence[CompressionConfig]) -> int:
    """Tokens of a prompt at the largest of some budgets, without decoding its files."""
    visuals = [reader.look(source) for source in visual_sources(messages)]
    text = len(tokenize_prompt(reader.processor, messages, [1] * len(visuals))) - len(visuals)
    return text + max(sum(View.of(visual, budget).tokens for visual in visuals) for budget in budgets)


def encode(model: MarcForConditionalGeneration, views: Iterable[View]) -> dict[View, Tensor]:
    """Runs the vision tower over each distinct file once, and the compression of each distinct view.

    Returns:
        ``[M, D]`` for each view, connected to the tower's weights where gradients are on.
    """
    distinct = list(dict.fromkeys(views))
    inside = [view for view in distinct if view.inside_tower]
    after = [view for view in distinct if not view.inside_tower]
    tokens = _tower_tokens(model, [view.visual for view in after])
    features = {view: tokens[view.visual] for view in after if view.plan is None}
    planned = [(view, view.plan) for view in after if view.plan is not None]
    videos_TPD = [tokens[view.visual].unflatten(0, (plan.frames, -1)) for view, plan in planned]
    compressed = compress_videos(videos_TPD, [plan for _, plan in planned])
    features.update((view, video.flat) for (view, _), video in zip(planned, compressed, strict=True))
    if inside:
        pixels, grids = _pixels(model, [view.visual for view in inside])
        with at_compression(model, inside[0].compression):
            output = model.model.get_video_features(
                pixels, grids, _padded([view.events for view in inside], torch.long)
            )
        features.update(zip(inside, output.pooler_output, strict=True))
    return {view: tokens_MD[: view.tokens] for view, tokens_MD in features.items()}


@torch.no_grad()
def encode_once(model: MarcForConditionalGeneration, views: Iterable[View]) -> dict[View, Tensor]:
    """As `encode`, for a tower that keeps its weights: its tokens stay with the file.

    The pixels are freed, unless the model merges inside the tower and needs them for other views of the file.
    """
    distinct = list(dict.fromkeys(views))
    new = [view for view in distinct if view.features is None]
    if all(each.tower_layer is None for each in (model.compression, *(view.compression for view in new))):
        for visual, tokens in _tower_tokens(model, [view.visual for view in new]).items():
            visual.tower, visual.pixels = tokens, None
    for view, features in encode(model, new).items():
        view.features = features
    return {view: view.features for view in distinct if view.features is not None}


def _tower_tokens(model: MarcForConditionalGeneration, visuals: Iterable[Visual]) -> dict[Visual, Tensor]:
    """Every token ``[T * P, D]`` of each distinct visual: one call for all videos, one for all images."""
    distinct = list(dict.fromkeys(visuals))
    tokens = {visual: visual.tower for visual in distinct if visual.tower is not None}
    for kind in KINDS:
        chosen = [visual for visual in distinct if visual.kind == kind and visual.tower is None]
        if not chosen:
            continue
        pixels, grids = _pixels(model, chosen)
        with at_compression(model, every_token(model.compression)):
            if kind == "video":
                output = model.model.get_video_features(pixels, grids)
            else:
                output = model.model.get_image_features(pixels, grids, return_dict=True)
        tokens.update(zip(chosen, output.pooler_output, strict=True))
    return tokens


def _pixels(model: MarcForConditionalGeneration, visuals: Sequence[Visual]) -> tuple[Tensor, Tensor]:
    pixels = [visual.pixels for visual in visuals if visual.pixels is not None]
    assert len(pixels) == len(visuals), "a visual without pixels cannot be encoded"
    grids = torch.tensor([visual.grid_thw for visual in visuals], device=model.device)
    return torch.cat(pixels).to(model.device), grids


def token_types(input_ids: Tensor, model: MarcForConditionalGeneration) -> Tensor:
    """``mm_token_type_ids``: 1 for image tokens, 2 for video tokens, 0 for text."""
    return (input_ids == model.config.image_token_id).int() + 2 * (input_ids == model.config.video_token_id).int()


def grid_inputs(rows: Sequence[Sequence[View]]) -> dict[str, Tensor]:
    """What the model needs to know about the visuals of a batch beside their features: grids, events, times."""
    inputs: dict[str, Tensor] = {}
    if videos := _of_kind(rows, "video"):
        assert len({view.compression for view in videos}) == 1, "one call of the model has one budget"
        inputs["video_grid_thw"] = torch.tensor([view.visual.grid_thw for view in videos])
        inputs["video_grid_seconds"] = _padded([view.visual.seconds for view in videos], torch.float64)
        if videos[0].plan is not None:
            inputs["video_grid_events"] = _padded([view.events for view in videos], torch.long)
    if images := _of_kind(rows, "image"):
        inputs["image_grid_thw"] = torch.tensor([view.visual.grid_thw for view in images])
    return inputs


def feature_inputs(
    rows: Sequence[Sequence[View]], features: Mapping[View, Tensor]
) -> dict[str, BaseModelOutputWithPooling]:
    """``mm_encoder_outputs`` of a batch: the features of each row's visuals, repeated where rows share them."""
    return {
        kind: BaseModelOutputWithPooling(pooler_output=tuple(features[view] for view in chosen))
        for kind in KINDS
        if (chosen := _of_kind(rows, kind))
    }


def _of_kind(rows: Sequence[Sequence[View]], kind: str) -> list[View]:
    return [view for row in rows for view in row if view.kind == kind]


def _padded(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], dtype=dtype)
