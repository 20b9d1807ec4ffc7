"""Videos and images of prompts: found in the messages, read from files, encoded once, handed to the model.

A prompt names its files: ``{"type": "video", "video": path, "cuts": [seconds]}`` (``cuts``, where events begin, is
optional) or ``{"type": "image", "image": path}``. Frames are decoded, and their tokens planned, exactly as at
inference; the times of frames are always given, so that positions agree between generation and log-probabilities.

Shapes: N patches, C numbers a patch, T temporal grids, M visual tokens, D channels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.video_utils import VideoMetadata

from marc.model import MarcForConditionalGeneration, MarcProcessor
from marc.video import frame_size, probe, read_frames, sample_times

GRID_FRAMES = 2
"""Frames that the tower reads as one temporal grid."""
MAX_TOKENS = 128
"""Most tokens of a frame in training (Video-R1)."""

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class VisualSource:
    """What a prompt names.

    Attributes:
        kind: ``"video"`` or ``"image"``.
        path: The file.
        cuts: Seconds at which new events of a video begin; None: not known.
    """

    kind: str
    path: str
    cuts: tuple[float, ...] | None = None


@dataclass(eq=False)
class Visual:
    """One video or image, read.

    Attributes:
        kind: ``"video"`` or ``"image"``.
        pixels: Patches, ``[N, C]``.
        grid_thw: Temporal grids, height and width in patches.
        tokens: Visual tokens that the language model reads.
        events: Event id of each temporal grid of a video.
        seconds: Time of each temporal grid of a video.
        features: ``[M, D]`` from a tower that is not trained: encoded once.
    """

    kind: str
    pixels: Tensor
    grid_thw: tuple[int, int, int]
    tokens: int
    events: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()
    features: Tensor | None = None


@dataclass(frozen=True)
class VisualReader:
    """Reads what prompts name.

    Attributes:
        processor: The model's.
        fps: Frames per second to read from a video.
        max_frames: Most frames of a video.
        min_frames: Fewest frames of a video.
        max_pixels: Most pixels of a frame or image; None: `MAX_TOKENS` worth, or the processor's limit if lower.
        timeout: Seconds that reading one file may take.
    """

    processor: MarcProcessor
    fps: float = 2.0
    max_frames: int = 64
    min_frames: int = 4
    max_pixels: int | None = None
    timeout: float = 60.0

    def read(self, source: VisualSource) -> Visual:
        """Reads a file.

        Raises:
            ValueError: If it cannot be read (for videos a `marc.video.VideoError`); the message names it.
        """
        return self._read_image(source) if source.kind == "image" else self._read_video(source)

    def count_tokens(self, source: VisualSource) -> int:
        """Visual tokens of a file, without decoding it.

        Raises:
            ValueError: If the file cannot be opened.
        """
        patch = self.processor.video_processor.patch_size
        if source.kind == "image":
            width, height = self._size(*_open_image(source.path).size, source.path)
            return self._tokens("image", (1, height // patch, width // patch))
        info = probe(source.path, timeout=self.timeout)
        times = sample_times(info, fps=self.fps, max_frames=self.max_frames, min_frames=self.min_frames)
        width, height = self._size(info.width, info.height, source.path)
        grid_times = times[::GRID_FRAMES]
        grid = (len(grid_times), height // patch, width // patch)
        return self._tokens("video", grid, self._events(source, grid_times))

    def _read_video(self, source: VisualSource) -> Visual:
        frames = read_frames(
            source.path,
            fps=self.fps,
            max_frames=self.max_frames,
            min_frames=self.min_frames,
            timeout=self.timeout,
            min_pixels=self._pixels["min_pixels"],
            max_pixels=self._pixels["max_pixels"],
            factor=self._pixels["factor"],
        )
        metadata = VideoMetadata(total_num_frames=len(frames), fps=1.0, frames_indices=list(range(len(frames))))
        processed = self.processor.video_processor(
            [frames.rgb], video_metadata=[metadata], do_sample_frames=False, do_resize=False, return_tensors="pt"
        )
        grid = _grid(processed["video_grid_thw"])
        grid_times = frames.seconds[::GRID_FRAMES]
        events = self._events(source, grid_times)
        return Visual(
            "video",
            processed["pixel_values_videos"],
            grid,
            self._tokens("video", grid, events),
            events,
            tuple(grid_times.tolist()),
        )

    def _read_image(self, source: VisualSource) -> Visual:
        image = _open_image(source.path)
        try:
            picture = image.convert("RGB").resize(self._size(*image.size, source.path), Image.Resampling.BICUBIC)
        except OSError as error:
            raise ValueError(f"{source.path}: the image is damaged ({error})") from error
        processed = self.processor.image_processor([picture], do_resize=False, return_tensors="pt")
        grid = _grid(processed["image_grid_thw"])
        return Visual("image", processed["pixel_values"], grid, self._tokens("image", grid))

    def _events(self, source: VisualSource, grid_times: np.ndarray) -> tuple[int, ...]:
        """Event id of each temporal grid; without cuts every grid is its own in the event layout, else all are one."""
        if source.cuts is not None:
            return tuple(np.searchsorted(source.cuts, grid_times, side="right").tolist())
        own = self.processor.compression.layout == "events"
        return tuple(range(len(grid_times))) if own else (0,) * len(grid_times)

    def _tokens(self, kind: str, grid: tuple[int, int, int], events: Sequence[int] | None = None) -> int:
        plan = self.processor.plan(grid, events=events) if kind == "video" else None
        merge = self.processor.video_processor.merge_size
        return plan.tokens if plan is not None else grid[0] * grid[1] * grid[2] // merge**2

    @property
    def _pixels(self) -> dict[str, int]:
        video_processor = self.processor.video_processor
        factor = video_processor.patch_size * video_processor.merge_size
        largest = self.max_pixels or min(video_processor.size["longest_edge"], MAX_TOKENS * factor**2)
        return {"min_pixels": min(4 * factor**2, largest), "max_pixels": largest, "factor": factor}

    def _size(self, width: int, height: int, path: str) -> tuple[int, int]:
        return frame_size(width, height, source=path, **self._pixels)


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


def visual_sources(messages: Messages) -> list[VisualSource]:
    """The files that a prompt names, in order."""
    sources = []
    for message in clean_messages(messages):
        parts = [] if isinstance(message["content"], str) else message["content"]
        for part in parts:
            path = part.get(part["type"])
            if part["type"] in ("video", "image") and isinstance(path, str):
                cuts = part.get("cuts")
                sources.append(VisualSource(part["type"], path, None if cuts is None else tuple(cuts)))
    return sources


def without_visuals(messages: Messages) -> list[dict[str, Any]]:
    """The prompt without its videos and images."""
    return [
        {**message, "content": message["content"]}
        if isinstance(message["content"], str)
        else {**message, "content": [part for part in message["content"] if part["type"] == "text"]}
        for message in clean_messages(messages)
    ]


def tokenize_prompt(
    processor: MarcProcessor, messages: Messages, visual_tokens: Sequence[int], **template: Any
) -> list[int]:
    """Token ids of a prompt whose placeholders are expanded to ``visual_tokens``, one number per file in order."""
    text = processor.apply_chat_template(
        clean_messages(messages), add_generation_prompt=True, tokenize=False, **template
    )
    counts = iter(visual_tokens)
    placeholder = f"{re.escape(processor.video_token)}|{re.escape(processor.image_token)}"
    expanded = re.sub(placeholder, lambda match: match[0] * next(counts), text)
    assert next(counts, None) is None, "the chat template left a video or image out"
    ids: list[int] = processor.tokenizer(expanded, add_special_tokens=False)["input_ids"]
    return ids


def prompt_length(reader: VisualReader, messages: Messages) -> int:
    """Tokens of a prompt, without decoding its files."""
    counts = [reader.count_tokens(source) for source in visual_sources(messages)]
    return len(tokenize_prompt(reader.processor, messages, counts))


def encode(model: MarcForConditionalGeneration, visuals: Iterable[Visual]) -> dict[Visual, Tensor]:
    """Runs the vision tower and the compression, in one call for all videos and one for all images.

    Returns:
        ``[M, D]`` for each distinct visual, connected to the tower's weights where gradients are on.
    """
    features: dict[Visual, Tensor] = {}
    distinct = list(dict.fromkeys(visuals))
    for kind in ("video", "image"):
        chosen = [visual for visual in distinct if visual.kind == kind]
        if not chosen:
            continue
        pixels_NC = torch.cat([visual.pixels for visual in chosen]).to(model.device)
        grids = torch.tensor([visual.grid_thw for visual in chosen], device=model.device)
        if kind == "video":
            output = model.model.get_video_features(pixels_NC, grids, _padded([visual.events for visual in chosen]))
        else:
            output = model.model.get_image_features(pixels_NC, grids, return_dict=True)
        features.update(zip(chosen, output.pooler_output, strict=True))
    return features


def token_types(input_ids: Tensor, model: MarcForConditionalGeneration) -> Tensor:
    """``mm_token_type_ids``: 1 for image tokens, 2 for video tokens, 0 for text."""
    return (input_ids == model.config.image_token_id).int() + 2 * (input_ids == model.config.video_token_id).int()


def grid_inputs(rows: Sequence[Sequence[Visual]], processor: MarcProcessor) -> dict[str, Tensor]:
    """What the model needs to know about the visuals of a batch beside their features: grids, events, times."""
    inputs: dict[str, Tensor] = {}
    if videos := _of_kind(rows, "video"):
        inputs["video_grid_thw"] = torch.tensor([video.grid_thw for video in videos])
        inputs.update(
            processor.planning_inputs([video.events for video in videos], [video.seconds for video in videos])
        )
    if images := _of_kind(rows, "image"):
        inputs["image_grid_thw"] = torch.tensor([image.grid_thw for image in images])
    return inputs


def feature_inputs(
    rows: Sequence[Sequence[Visual]], features: Mapping[Visual, Tensor]
) -> dict[str, BaseModelOutputWithPooling]:
    """``mm_encoder_outputs`` of a batch: the features of each row's visuals, repeated where rows share them."""
    return {
        kind: BaseModelOutputWithPooling(pooler_output=tuple(features[visual] for visual in chosen))
        for kind in ("video", "image")
        if (chosen := _of_kind(rows, kind))
    }


def _of_kind(rows: Sequence[Sequence[Visual]], kind: str) -> list[Visual]:
    return [visual for row in rows for visual in row if visual.kind == kind]


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])


def _grid(grid_thw: Tensor) -> tuple[int, int, int]:
    temporal, height, width = grid_thw[0].tolist()
    return temporal, height, width


def _open_image(path: str) -> Image.Image:
    try:
        return Image.open(path)
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"{path}: cannot be read as an image ({error})") from error
