"""Embeddings of events and questions: one unit vector each, in one space.

Paper, section "Visual Memory Retriever": a Perception Encoder maps the question and every event to one latent space.
Here any of the models of `marc.memory.encoders` does. Where the model sees pictures, an event is the mean of the unit
vectors of a few of its frames, made a unit vector again; where it sees clips, an event is a clip. A question is
embedded without its answer options, because text towers read only a few tokens (32 in the Perception Encoder).

    marc remember talk.mp4 --embedder PE-Core-T-16-384

Shape legend: T frames, H height, W width, D embedding dimensions, E events.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from marc.io import reading
from marc.memory.encoders.dual_encoder import (
    TINY_FOLDER,
    DualEncoder,
    load_dual_encoder,
    save_dual_encoder,
    untrained_dual_encoder,
)
from marc.memory.encoders.interface import ClipEncoder, Encoder, Precision
from marc.memory.encoders.interface import TextEncoder as AnyTextEncoder
from marc.memory.encoders.loading import check_listed, load_encoder, load_text_encoder
from marc.memory.precision import multiplies_bfloat16
from marc.memory.question import question_stem
from marc.memory.text_tower import CONFIG_FILE, WEIGHTS_FILE
from marc.memory.vectors import average_direction
from marc.threads import threads_for

__all__ = [
    "CONFIG_FILE",
    "TINY_FOLDER",
    "WEIGHTS_FILE",
    "DualEncoder",
    "EventEmbedder",
    "Precision",
    "QuestionEmbedding",
    "check_listed",
    "load_dual_encoder",
    "save_dual_encoder",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class QuestionEmbedding:
    """A question as the text tower read it.

    Attributes:
        vector: ``float32 [D]``, unit length.
        text: The question stem that was embedded.
        token_count: Tokens of the stem with start and end token, before any truncation.
        token_limit: Tokens that the text tower reads.
    """

    vector: NDArray[np.float32]
    text: str
    token_count: int
    token_limit: int

    @property
    def truncated(self) -> bool:
        """Whether the end of the stem was cut off."""
        return self.token_count > self.token_limit


class EventEmbedder:
    """Embeds frames, events and questions with one model.

    Attributes:
        fingerprint: Hexadecimal identity of configuration and weights; about 1,024 values of every tensor are hashed.

    Args:
        encoder: A model, which is changed to run as said here; or a text tower alone, to which both towers are loaded
            when the first picture comes.
        device: Where the model runs.
        precision: ``"auto"`` is bf16 where the hardware multiplies matrices of it, else float32. In bf16 weights are
            held in it, half as large; norms and sums of PE-Core's image tower stay in float32.
        batch_size: Frames or questions per forward pass.

    Raises:
        ValueError: The precision is unknown or the batch empty.
    """

    def __init__(
        self,
        encoder: Encoder | AnyTextEncoder,
        *,
        device: str | torch.device = "cpu",
        precision: Precision = "auto",
        batch_size: int = 32,
    ) -> None:
        if precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision must be 'auto', 'fp32' or 'bf16', not {precision!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.device = torch.device(device)
        fast = "bf16" if multiplies_bfloat16(self.device) else "fp32"
        self.precision = fast if precision == "auto" else precision
        self.batch_size = batch_size
        self.name, self.fingerprint, self.dimension = encoder.name, encoder.fingerprint, encoder.dimension
        self._texts = encoder
        self._place(encoder)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        device: str | torch.device | None = None,
        precision: Precision = "auto",
        batch_size: int = 32,
    ) -> EventEmbedder:
        """Load a model with its weights.

        Args:
            name_or_folder: ``"tiny"`` (the shipped micro-world encoder); a folder with the files of an open_clip model
                (``open_clip_config.json``) or of one of transformers (``config.json``); a repository of the Hugging
                Face hub, ``"OWNER/REPOSITORY"``; or an open_clip model such as ``"PE-Core-T-16-384"``, with ``":TAG"``
                for other weights than the first that open_clip lists.
            device: Default: the GPU if there is one.
            precision: ``"auto"``, ``"fp32"`` or ``"bf16"``.
            batch_size: Frames or questions per forward pass.

        Raises:
            ValueError: The model is unknown or of a kind that cannot embed, or its weights are missing, unreachable or
                do not fit its configuration.
        """
        encoder = load_text_encoder(name_or_folder) or load_encoder(name_or_folder)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(encoder, device=device, precision=precision, batch_size=batch_size)

    @classmethod
    def untrained(cls, name: str, *, device: str | torch.device = "cpu") -> EventEmbedder:
        """An open_clip model with random weights, which costs what a trained one costs: for measurements of speed."""
        return cls(untrained_dual_encoder(name, device), device=device)

    @property
    def model(self) -> torch.nn.Module:
        """The network, both towers of it."""
        return self._pictures.model

    @property
    def image_size(self) -> int:
        """Longer side in pixels of the picture that the model sees."""
        return self._pictures.image_size

    @property
    def clip_frames(self) -> int:
        """Frames of an event that the model looks at together; 1 if it sees pictures one by one."""
        return self._pictures.clip_frames if isinstance(self._pictures, ClipEncoder) else 1

    @property
    def token_limit(self) -> int:
        """Tokens of a question that the model reads, with those that are around every question."""
        return self._texts.token_limit

    @property
    def identity(self) -> dict[str, str]:
        """What two embedders must share for their vectors to be comparable."""
        return {"fingerprint": self.fingerprint, "precision": self.precision}

    def embed_frames(self, frames_THWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Unit vectors ``float32 [T, D]`` of RGB frames ``uint8 [T, H, W, 3]``, each by itself."""
        _check_frames(frames_THWC)
        vectors = [np.empty((0, self.dimension), np.float32)]
        for start in range(0, len(frames_THWC), self.batch_size):
            batch = frames_THWC[start : start + self.batch_size]
            vectors.append(self._unit(partial(self._pictures.encode_frames, batch)))
        return np.concatenate(vectors)

    def embed_events(
        self, frames_per_event: Sequence[NDArray[np.uint8]], seconds_per_event: Sequence[NDArray[np.float64]] = ()
    ) -> NDArray[np.float32]:
        """One unit vector per event ``float32 [E, D]`` from a few frames ``uint8 [T, H, W, 3]`` of each.

        A model of clips sees the frames of an event together. Else the vector is the mean of the frames' unit vectors,
        normalised again, so that no frame outweighs another.

        Args:
            frames_per_event: In time order.
            seconds_per_event: Times ``[T]`` of each event's frames since its beginning; a second apart by default.
        """
        if any(len(frames) == 0 for frames in frames_per_event):
            raise ValueError("every event needs at least one frame")
        if not isinstance(self._pictures, ClipEncoder):
            return np.stack([average_direction(self.embed_frames(frames)) for frames in frames_per_event])
        for frames in frames_per_event:
            _check_frames(frames)
        seconds = seconds_per_event or [np.arange(len(frames), dtype=np.float64) for frames in frames_per_event]
        together = max(1, self.batch_size // self.clip_frames)
        vectors = []
        for start in range(0, len(frames_per_event), together):
            clips, times = frames_per_event[start : start + together], seconds[start : start + together]
            vectors.append(self._unit(partial(self._pictures.encode_clips, clips, times)))
        return np.concatenate(vectors)

    def embed_question(self, question: str) -> QuestionEmbedding:
        """Embed one question without its options; a stem longer than the text tower reads is truncated and logged."""
        return self.embed_questions([question])[0]

    def embed_questions(self, questions: Sequence[str]) -> list[QuestionEmbedding]:
        """Embed questions in batches; see `embed_question`."""
        stems = [question_stem(question) for question in questions]
        if not all(stems):
            raise ValueError("a question is empty")
        embeddings = []
        for start in range(0, len(stems), self.batch_size):
            batch = stems[start : start + self.batch_size]
            vectors = self._unit(partial(self._texts.encode_texts, batch))
            counts = [self._texts.token_count(stem) for stem in batch]
            embeddings += [
                QuestionEmbedding(vector, stem, count, self.token_limit)
                for vector, stem, count in zip(vectors, batch, counts, strict=True)
            ]
        for embedding in filter(lambda embedding: embedding.truncated, embeddings):
            logger.warning(
                "%s reads %d of the %d tokens of the question %r",
                self.name,
                self.token_limit,
                embedding.token_count,
                embedding.text,
            )
        return embeddings

    @cached_property
    def _pictures(self) -> Encoder:
        """The whole model.

        Raises:
            ValueError: It is no longer that whose text tower was loaded.
        """
        if isinstance(self._texts, Encoder):
            return self._texts
        encoder = load_encoder(self.name)
        if encoder.fingerprint != self.fingerprint:
            raise ValueError(f"{self.name}: the model's files have changed since its text tower was loaded")
        self._place(encoder)
        return encoder

    def _place(self, encoder: AnyTextEncoder) -> None:
        """Moves a model to where it runs, in its precision, and has it read a word and a blank picture.

        What is wrong with its files shows now, not in mid-work.
        """
        with reading(self.name, "encoder"):
            encoder.place(self.device, self.precision)
            vectors = [self._unit(partial(encoder.encode_texts, ["a"]))]
            if isinstance(encoder, Encoder):
                vectors.append(self._unit(partial(encoder.encode_frames, np.zeros((1, 8, 8, 3), np.uint8))))
            for vector in vectors:
                if vector.shape != (1, self.dimension) or not np.isfinite(vector).all():
                    raise ValueError(f"{self.name}: its vectors are not {self.dimension} finite numbers")

    def _unit(self, encode: Callable[[], torch.Tensor]) -> NDArray[np.float32]:
        bf16 = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), bf16, threads_for(self._texts.model):
            features = encode()
        return torch.nn.functional.normalize(features.to(torch.float32), dim=-1).cpu().numpy()


def _check_frames(frames_THWC: NDArray[np.uint8]) -> None:
    if frames_THWC.ndim != 4 or frames_THWC.shape[3] != 3 or frames_THWC.dtype != np.uint8:
        raise ValueError(f"frames must be uint8 [T, H, W, 3], not {frames_THWC.dtype} {list(frames_THWC.shape)}")
