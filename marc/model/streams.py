"""DeepStack's streams: a visual token may have features for several layers of the language model.

A tower with DeepStack gives of each token its last feature, which stands in the prompt, and some earlier ones, which
are added to what the first layers make of it. Here they travel side by side as one feature ``[last | first layer's |
second layer's | ...]``: whatever is decided, by the last ones alone, is then carried out on every stream, and a video
stays one tensor until the language model reads it. Towers without DeepStack have one stream, and nothing changes.

Shapes: N tokens, D features of a stream, W features of all streams side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling


@dataclass
class VisualFeatures(BaseModelOutputWithPooling):
    """Features of several videos or images.

    Attributes:
        pooler_output: One ``[N, D]`` tensor for each.
        deepstack_features: For each layer of the language model that takes some, likewise.
        members: For each compressed video, ``int64 [T]``: the merged grid in which each temporal grid ended.
        places: For each video whose tokens a rule chose, ``int64 [N]``: the grid and cell at which each stands.
    """

    deepstack_features: list[tuple[Tensor, ...]] | None = None
    members: tuple[Tensor | None, ...] | None = None
    places: tuple[Tensor | None, ...] | None = None


def side_by_side(last: Tensor, deepstack: Sequence[Tensor] | None) -> Tensor:
    """All streams of some tokens as one feature, ``[N, W]``."""
    return torch.cat((last, *deepstack), -1) if deepstack else last


def features_of_each(output: Any) -> tuple[Tensor, ...]:
    """The streams side by side, ``[N, W]``, of each video or image that ``get_video_features`` or its like returns."""
    levels = getattr(output, "deepstack_features", None) or ()
    return tuple(side_by_side(last, deepstack) for last, *deepstack in zip(output.pooler_output, *levels, strict=True))


def apart(features: Sequence[Tensor], width: int, **about: Any) -> VisualFeatures:
    """Undoes `features_of_each`.

    Args:
        features: ``[N, W]`` for each video or image.
        width: D.
        **about: ``members`` and ``places`` of `VisualFeatures`.
    """
    streams = [each.split(width, -1) for each in features]
    last, *levels = zip(*streams, strict=True)
    return VisualFeatures(pooler_output=last, deepstack_features=levels, **about)
