"""``python writer.py LIBRARY FIRST COUNT``: add videos to a library one by one, printing each when it is in."""

import sys

import numpy as np

from marc.memory.library import MemoryLibrary
from marc.memory.store import MemorySettings, VideoMemory
from marc.types import Event

DIMENSION = 8


def memory(number: int, events: int = 5, *, embedder: str = "a" * 64, shift: float = 0.0) -> VideoMemory:
    vectors = np.random.default_rng(number).normal(size=(events, DIMENSION)).astype(np.float32)
    return VideoMemory(
        source=f"/videos/{number}.mp4",
        content=f"{number:064x}",
        events=tuple(Event(index + shift, index + shift + 1) for index in range(events)),
        embeddings=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        thumbnails=(b"",) * events,
        settings=MemorySettings("1", embedder, "fp32", "uniform", "", 1.0, 20.0, 4.0, 160),
        versions={},
    )


if __name__ == "__main__":
    library = MemoryLibrary(sys.argv[1])
    for number in range(int(sys.argv[2]), int(sys.argv[2]) + int(sys.argv[3])):
        library.add([memory(number)])
        print(number, flush=True)
