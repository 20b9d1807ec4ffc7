"""What an embedding model is to `marc.memory.EventEmbedder`, whatever its library: texts and pictures to vectors.

Shape legend: B texts, T frames, E clips, H height, W width, D embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

Precision = Literal["auto", "fp32", "bf16"]


class TextEncoder(Protocol):
    """A model of which texts can be embedded. Vectors need not have unit length."""

    @property
    def name(self) -> str:
        """What the model is called in messages and in the settings of a memory."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hexadecimal identity of all that the vectors depend on but the number format; that of the stored weights."""
        ...

    @property
    def model(self) -> torch.nn.Module:
        """The network."""
        ...

    @property
    def dimension(self) -> int:
        """Length D of the vectors."""
        ...

    @property
    def token_limit(self) -> int:
        """Tokens of a question that the model reads, with those that are around every question."""
        ...

    def token_count(self, text: str) -> int:
        """Tokens of a text before anything is cut, with those that are around every question."""
        ...

    def place(self, device: torch.device, precision: str) -> None:
        """Moves the model to where it runs, and holds its weights as ``"fp32"`` or ``"bf16"`` wants them."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Vectors ``[B, D]`` of questions, which are cut to the limit."""
        ...


@runtime_checkable
class Encoder(TextEncoder, Protocol):
    """A model of which pictures can be embedded, too."""

    @property
    def image_size(self) -> int:
        """Longer side in pixels of the picture that the model sees."""
        ...

    def encode_frames(self, frames_THWC: NDArray[np.uint8]) -> torch.Tensor:
        """Vectors ``[T, D]`` of RGB frames ``uint8 [T, H, W, 3]``, each by itself."""
        ...


@runtime_checkable
class ClipEncoder(Encoder, Protocol):
    """A model that looks at the frames of an event together."""

    @property
    def clip_frames(self) -> int:
        """Frames that it wants of an event."""
        ...

    def encode_clips(self, clips: Sequence[NDArray[np.uint8]], seconds: Sequence[NDArray[np.float64]]) -> torch.Tensor:
        """Vectors ``[E, D]`` of clips of any numbers of frames, each as a whole.

        Args:
            clips: RGB frames ``uint8 [T, H, W, 3]`` of each.
            seconds: Their times ``[T]`` since the beginning of the event.
        """
        ...
