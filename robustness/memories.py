"""Memories that no video was looked at for, and an embedder whose questions are vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marc.memory.store import MemorySettings, VideoMemory
from marc.types import Event

DIMENSIONS = 8
FINGERPRINT = "a" * 64
SETTINGS = MemorySettings("1", FINGERPRINT, "fp32", "uniform", "", 1.0, 20.0, 4.0, 160)


def vectors(seed: Sequence[int], count: int) -> NDArray[np.float32]:
    """Unit vectors, ``float32 [count, 8]``."""
    normal = np.random.default_rng(list(seed)).normal(size=(count, DIMENSIONS)).astype(np.float32)
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def some_memory(source: str, content: str, version: int, events: int) -> VideoMemory:
    """The memory of a video whose events begin at ``version`` thousandths of a second from the whole one.

    Args:
        source: Path of the video.
        content: SHA-256 of the video.
        version: Tells memories of the same video apart, also by their vectors.
        events: Number of events, of about a second each.
    """
    ends = [index + 1 + version / 1000 for index in range(events)]
    return VideoMemory(
        source=source,
        content=content,
        events=tuple(Event(start, end) for start, end in zip([0.0, *ends], ends, strict=False)),
        embeddings=vectors([version, *content.encode()], events),
        thumbnails=tuple(b"\xff\xd8" + bytes(400 + index) + b"\xff\xd9" for index in range(events)),
        settings=SETTINGS,
        versions={},
    )


@dataclass(frozen=True)
class Question:
    """As much of an embedded question as the library looks at."""

    text: str
    vector: NDArray[np.float32]


class Asker:
    """An embedder for which every question is the same vector.

    Args:
        vector_D: The vector.
    """

    name = "asker"

    def __init__(self, vector_D: NDArray[np.float32]) -> None:
        self.identity = {"fingerprint": FINGERPRINT, "precision": "fp32"}
        self._vector_D = vector_D

    def embed_question(self, question: str) -> Any:
        """The vector."""
        return Question(question, self._vector_D)
