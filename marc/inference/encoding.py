"""Runs the vision tower and the compression over what prompts show, each distinct file once.

Shapes: T temporal grids, P tokens of a grid, M visual tokens that remain, W features of all streams of a token
(`marc.model.streams`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from marc.compression import CompressionConfig
from marc.compression.merge import compress_videos
from marc.inference.video_input import (
    KINDS,
    VideoInput,
    VisualPatches,
    at_compression,
    grid_inputs,
)
from marc.model import CompressedVLM
from marc.model.streams import features_of_each


def encode(model: CompressedVLM, inputs: Iterable[VideoInput]) -> dict[VideoInput, Tensor]:
    """Encodes each distinct input, from the tower's tokens where these are known; together what fits into a chunk.

    Returns:
        ``[M, W]`` for each input, connected to the tower's weights where gradients are on.
    """
    distinct = list(dict.fromkeys(inputs))
    known = [each for each in distinct if each.patches.tower is not None and each.is_known]
    features = _from_known_tokens(known, model.model.stream_width)
    together: dict[tuple[str, CompressionConfig], list[VideoInput]] = defaultdict(list)
    for each in distinct:
        if each not in features:
            together[each.kind, each.compression].append(each)
    # In the same order whatever comes first: processes that share the tower's weights out call it in step.
    for (kind, compression), some in sorted(together.items(), key=lambda item: KINDS.index(item[0][0])):
        pixels, grids = _pixels(model, [each.patches for each in some])
        fits = compression.tower_chunk is None or len(pixels) <= compression.tower_chunk
        with at_compression(model, replace(compression, tower_chunk=None) if fits else compression):
            if kind == "image":
                output = model.model.get_image_features(pixels, grids, return_dict=True)
            else:
                planning = {name: value for name, value in grid_inputs([some]).items() if name in _PLANNING}
                output = model.model.get_video_features(pixels, grids, **planning)
        features.update(zip(some, features_of_each(output), strict=True))
        for about in ("members", "places"):
            for each, value in zip(some, getattr(output, about, None) or (), strict=False):
                setattr(each, about, value)
    return {each: features[each][: each.tokens] for each in distinct}


_PLANNING = ("video_grid_events", "video_event_shares", "video_token_limits")


@torch.no_grad()
def encode_once(
    model: CompressedVLM, inputs: Iterable[VideoInput], budgets: Iterable[CompressionConfig] = ()
) -> dict[VideoInput, Tensor]:
    """As `encode`, for a tower that keeps its weights: the features stay with the input.

    Where several budgets of a file may come up, the tower's tokens stay with the file and its pixels are freed, unless
    the budget says what the tower reads: then pixels are needed again for others.

    Args:
        model: Encodes.
        inputs: What.
        budgets: That may come up later for the same files.
    """
    distinct = list(dict.fromkeys(inputs))
    new = [each for each in distinct if each.features is None]
    if not any(map(_changes_the_tower, (model.compression, *budgets, *(each.compression for each in new)))):
        _keep_tokens(model, [each.patches for each in new])
    for each, features in encode(model, new).items():
        each.features = features
    return {each: each.features for each in distinct if each.features is not None}


def _changes_the_tower(compression: CompressionConfig) -> bool:
    """Whether grids merge inside the tower, unequal ones are encoded once, or more is wanted of it than tokens."""
    wants_more = compression.rule is not None and compression.rule.wants_more
    return compression.tower_layer is not None or bool(compression.duplicates) or wants_more


def _keep_tokens(model: CompressedVLM, files: Iterable[VisualPatches]) -> None:
    """Replaces the pixels of files by every token of the tower."""
    unknown = [patches for patches in dict.fromkeys(files) if patches.tower is None]
    whole = {patches: VideoInput.every_token(patches, model.compression) for patches in unknown}
    tokens = encode(model, whole.values())
    for patches, each in whole.items():
        patches.tower, patches.pixels = tokens[each], None


def _from_known_tokens(inputs: Sequence[VideoInput], width: int) -> dict[VideoInput, Tensor]:
    """Features of inputs all of whose tokens the tower has given before."""
    tokens = {each: each.patches.tower for each in inputs if each.patches.tower is not None}
    features = {each: tokens[each] for each in inputs if each.plan is None}
    planned = [(each, each.plan) for each in inputs if each.plan is not None]
    videos_TPW = [tokens[each].unflatten(0, (plan.grids, -1)) for each, plan in planned]
    compressed = compress_videos(videos_TPW, [plan for _, plan in planned], decided_by=width)
    for (each, _), video in zip(planned, compressed, strict=True):
        features[each], each.members, each.places = video.flat, video.members, video.places
    return features


def _pixels(model: CompressedVLM, files: Sequence[VisualPatches]) -> tuple[Tensor, Tensor]:
    pixels = [patches.pixels for patches in files if patches.pixels is not None]
    assert len(pixels) == len(files), "a visual without pixels cannot be encoded"
    grids = torch.tensor([patches.grid_thw for patches in files], device=model.device)
    return torch.cat(pixels).to(model.device), grids
