"""VideoPrism's video-text models in transformers' format: the network sees a clip of sixteen frames at once.

What an event shows is brought to that number: frames evenly chosen where there are more, repeated where there are
fewer. A picture is a clip in which nothing moves.

Shape legend: E clips, T frames, H height, W width, B texts, D embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from marc.memory.encoders.checkpoint import CheckpointEncoder


class VideoPrism(CheckpointEncoder):
    """A `VideoPrismClipModel`; see `marc.memory.encoders.interface.ClipEncoder`."""

    reads: ClassVar[Mapping[str, Any]] = {"clips": "evenly chosen or repeated frames"}

    @property
    def dimension(self) -> int:
        """Width of both towers."""
        return int(self.model.config.text_config.hidden_size)

    @property
    def image_size(self) -> int:
        """Longer side of what the vision tower sees."""
        size = self.model.config.vision_config.image_size
        return int(size if isinstance(size, int) else max(size))

    @property
    def clip_frames(self) -> int:
        """Frames for which the network has learnt positions."""
        return int(self.model.config.vision_config.num_frames)

    @property
    def token_limit(self) -> int:
        """Positions of the text tower."""
        return int(self.model.config.text_config.max_position_embeddings)

    def token_count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.processor.tokenizer(text).input_ids)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Vectors ``[B, D]``."""
        inputs = self.inputs(text=list(texts), padding="max_length", max_length=self.token_limit, truncation=True)
        vectors_BD: torch.Tensor = self.model.get_text_features(**inputs).pooler_output
        return vectors_BD

    def encode_frames(self, frames_THWC: NDArray[np.uint8]) -> torch.Tensor:
        """Vectors ``[T, D]`` of clips in which nothing moves."""
        return self.encode_clips([frame[None] for frame in frames_THWC], [np.zeros(1)] * len(frames_THWC))

    def encode_clips(self, clips: Sequence[NDArray[np.uint8]], seconds: Sequence[NDArray[np.float64]]) -> torch.Tensor:
        """Vectors ``[E, D]``; when a frame was shown does not matter."""
        size = self.model.config.vision_config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        inputs = self.inputs(
            videos=[clip[evenly_chosen(len(clip), self.clip_frames)] for clip in clips],
            size={"height": height, "width": width},
            do_sample_frames=False,
        )
        vectors_E1D: torch.Tensor = self.model.get_video_features(**inputs).pooler_output
        return vectors_E1D[:, 0]


def evenly_chosen(count: int, wanted: int) -> NDArray[np.int64]:
    """So many indices of frames, each standing for an equal part of a clip; repeated if there are fewer frames."""
    return ((np.arange(wanted) + 0.5) * count / wanted).astype(np.int64)
