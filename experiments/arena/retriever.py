"""A dual encoder of the level arena that is not trained: its model's tower says what a picture shows in words.

Of a cell the tower says the sum of the embeddings of the words for what is there (`experiments.arena.model`), so a
picture is the mean of its cells' words and a question the sum of its own.

Shapes: B texts, T frames, H height, W width, P cells of a frame, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.arena.model import FILLER, spoken_words
from marc.inference.hf import HFBackend
from marc.inference.video_input import VideoInput, VisualPatches, every_token
from marc.types import FRAMES_PER_GRID, Frames
from marc.world.arena.scenes import ArenaVideo

TOKENS = 64


class TowerWords:
    """An `marc.memory.encoders.interface.Encoder`.

    Attributes:
        name: What it is called.
        fingerprint: That of the model.
        model: Which is shared, not copied.
        dimension: D.
        token_limit: Tokens that it reads of a question.
        image_size: Longer side of a frame in pixels.

    Args:
        backend: Of the trained model.
    """

    def __init__(self, backend: HFBackend) -> None:
        self.name, self.fingerprint, self.model = "the arena's tower", backend.fingerprint(), backend.model
        self._backend, self._tokenizer = backend, backend.processor.tokenizer
        table_VD = backend.model.model.language_model.embed_tokens.weight.detach()
        said = {each for ids in spoken_words(self._tokenizer).values() for each in ids if each is not None}
        said.discard(int(self._tokenizer.convert_tokens_to_ids(FILLER)))
        self._words_VD = torch.zeros_like(table_VD)
        self._words_VD[sorted(said)] = table_VD[sorted(said)]
        self.dimension, self.token_limit, self.image_size = table_VD.shape[1], TOKENS, max(ArenaVideo("", (), ()).size)

    def token_count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def place(self, device: torch.device, precision: str) -> None:
        """It stays where the model is."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """``[B, D]``: the sum of the words that the tower could have said."""
        ids = [self._tokenizer(f" {text}", add_special_tokens=False)["input_ids"][:TOKENS] for text in texts]
        return torch.stack([self._words_VD[each].sum(dim=0) for each in ids])

    @torch.no_grad()
    def encode_frames(self, frames_THWC: NDArray[np.uint8]) -> Tensor:
        """``[T, D]``: the mean of what the tower says of a frame's cells, each a grid of two such frames."""
        processor = self._backend.processor
        side = processor.cell_pixels
        size = [max(side, length // side * side) for length in frames_THWC.shape[1:3]]
        pictures = torch.from_numpy(frames_THWC).permute(0, 3, 1, 2)
        fitting = nn.functional.interpolate(pictures, size).permute(0, 2, 3, 1).numpy()
        still = np.repeat(fitting, FRAMES_PER_GRID, axis=0)
        drawn = Frames(still, np.arange(len(still), dtype=np.float64), "")
        whole = every_token(self._backend.compression)
        seen = VideoInput.of(VisualPatches.of_frames(processor, drawn, None), processor, whole)
        self._backend.encode([seen])
        assert seen.features is not None
        return seen.features.unflatten(0, (len(frames_THWC), -1)).mean(dim=1)
