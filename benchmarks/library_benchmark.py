"""What the steps of `marc remember`, `marc recall` and `marc forget` cost in a library of many events.

    python -m benchmarks.library_benchmark --events 1000000

fills a library in a temporary folder with made-up videos of 50 events (`benchmarks.search_benchmark`), a tenth of them
with each of ten tags, and words in the first event of one in a hundred, and prints the table of docs/memory.md. The
embedding of the question is not in it.

Shape legend: D embedding dimensions.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_benchmark import EVENT_SECONDS, EVENTS_PER_VIDEO, event_vectors
from marc.memory.embedder import EventEmbedder
from marc.memory.filters import EventFilter
from marc.memory.library import MemoryLibrary
from marc.memory.store import MemorySettings, VideoMemory
from marc.types import Event

SETTINGS = MemorySettings("1", "a" * 64, "fp32", "uniform", "", 1.0, 20.0, 4.0, 160)
TAGS = 10
QUESTION = "Where does it rain?"
REPEATS = 5


class Asker:
    """Stands in for an embedder: its question is a given vector."""

    name = "asker"

    def __init__(self, vector_D: NDArray[np.float32]) -> None:
        self.identity = {"fingerprint": SETTINGS.embedder, "precision": SETTINGS.precision}
        self._vector_D = vector_D

    def embed_question(self, question: str) -> Any:
        """See `EventEmbedder.embed_question`."""
        return SimpleNamespace(vector=self._vector_D, text=question)


def video(number: int, vectors_ED: NDArray[np.float32]) -> VideoMemory:
    """The memory of a made-up video."""
    events = tuple(Event(EVENT_SECONDS * index, EVENT_SECONDS * (index + 1)) for index in range(len(vectors_ED)))
    thumbnails = (b"",) * len(events)
    return VideoMemory(f"/videos/{number}.mp4", f"{number:064x}", events, vectors_ED, thumbnails, SETTINGS, {})


def videos(count: int, dimension: int) -> Iterator[list[VideoMemory]]:
    """So many events in all, a block of videos at a time."""
    number = 0
    for block in event_vectors(count, dimension, intrinsic=32):
        parts = [block[start : start + EVENTS_PER_VIDEO] for start in range(0, len(block), EVENTS_PER_VIDEO)]
        yield [video(number + index, part) for index, part in enumerate(parts)]
        number += len(parts)


def fill(library: MemoryLibrary, count: int, dimension: int) -> None:
    """Put videos in, a block in one step with one tag."""
    for index, memories in enumerate(videos(count, dimension)):
        said = [_said_in(memory) for memory in memories]
        library.add(memories, said, tags=[str(index % TAGS)])


def _said_in(memory: VideoMemory) -> list[str]:
    first = "it rains" if memory.source.endswith("00.mp4") else ""
    return [first, *[""] * (len(memory.events) - 1)]


def steps(library: MemoryLibrary, count: int, dimension: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is measured, in its order."""
    rng = np.random.default_rng(9)
    vectors_ED = rng.standard_normal((EVENTS_PER_VIDEO, dimension), dtype=np.float32)
    new = video(count, vectors_ED / np.linalg.norm(vectors_ED, axis=1, keepdims=True))
    asker = cast(EventEmbedder, Asker(new.embeddings[3]))

    def recalled(**options: Any) -> Callable[[], object]:
        return lambda: library.recall_page(asker, QUESTION, 5, **options)

    yield "fill it", lambda: fill(library, count, dimension)
    yield "look whether it needs mending", lambda: MemoryLibrary(library.address).mend()
    yield "build the indices", library.optimize
    yield "know that a video is not in it", lambda: library.holds(new)
    yield "put it in", lambda: library.add([new], tags=["new"])
    yield "know that it is in", lambda: library.holds(new, tags=["new"])
    yield "replace it", lambda: library.add([new], tags=["newer"])
    yield "first question", recalled()
    yield "question", recalled()
    yield "question among a tenth of the videos", recalled(among=EventFilter(tags=("3",)))
    yield "question in one video", recalled(among=EventFilter(videos=("/videos/7.mp4",)))
    yield "question in half of each video", recalled(among=EventFilter(after=EVENT_SECONDS * EVENTS_PER_VIDEO / 2))
    yield "its page 200", recalled(number=200)
    yield "forget a video", lambda: library.remove("/videos/7.mp4")
    yield "compact", library.optimize


def measured(step: str, work: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of a step by the clock and of all cores; questions are asked several times."""
    times = []
    for _ in range(REPEATS if step.startswith("question") else 1):
        clock, processor = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - clock, time.process_time() - processor))
    by_clock, by_processor = np.median(times, axis=0).tolist()
    return by_clock, by_processor


def main() -> None:
    """Entry point of ``python -m benchmarks.library_benchmark``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512, help="of the embeddings; 512 is PE-Core-T's")
    options = parser.parse_args()
    print("| step | clock s | processor s |\n|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="marc-library-") as name:
        for step, work in steps(MemoryLibrary(Path(name) / "library"), options.events, options.dimension):
            by_clock, by_processor = measured(step, work)
            print(f"| {step} | {by_clock:.3f} | {by_processor:.3f} |", flush=True)


if __name__ == "__main__":
    main()
