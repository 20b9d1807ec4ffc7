"""SigLIP and SigLIP 2 in transformers' format: both towers see one picture, or one text of at most 64 tokens.

The checkpoints of fixed sizes (``google/siglip2-base-patch16-224``) are of the type ``siglip``, those that keep a
picture's shape (``google/siglip2-base-patch16-naflex``) of the type ``siglip2``. Texts are filled up to the limit and
in lower case, as they were in training.

Shape legend: T frames, H height, W width, B texts, D embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from marc.memory.encoders.checkpoint import CheckpointEncoder


class Siglip(CheckpointEncoder):
    """A `SiglipModel` or `Siglip2Model`; see `marc.memory.encoders.interface.Encoder`."""

    reads: ClassVar[Mapping[str, Any]] = {"text": "lower case, filled up to the limit"}

    @property
    def dimension(self) -> int:
        """What the text tower projects to."""
        text = self.model.config.text_config
        return int(text.projection_size or text.hidden_size)

    @property
    def image_size(self) -> int:
        """The side, or that of a square of as many patches as the tower takes."""
        vision = self.model.config.vision_config
        patches = getattr(self.processor.image_processor, "max_num_patches", None)
        return isqrt(patches) * int(vision.patch_size) if patches else int(vision.image_size)

    @property
    def token_limit(self) -> int:
        """Positions of the text tower."""
        return int(self.model.config.text_config.max_position_embeddings)

    def token_count(self, text: str) -> int:
        """Tokens with the end token."""
        return len(self.processor.tokenizer(text.lower()).input_ids)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Vectors ``[B, D]``."""
        lower = [text.lower() for text in texts]
        inputs = self.inputs(text=lower, padding="max_length", max_length=self.token_limit, truncation=True)
        vectors_BD: torch.Tensor = self.model.get_text_features(**inputs).pooler_output
        return vectors_BD

    def encode_frames(self, frames_THWC: NDArray[np.uint8]) -> torch.Tensor:
        """Vectors ``[T, D]``."""
        made = self.processor.image_processor(images=list(frames_THWC), return_tensors="pt")
        inputs = made.to(self.model.device)
        vectors_TD: torch.Tensor = self.model.get_image_features(**inputs).pooler_output
        return vectors_TD
