"""What another question about a remembered video costs, by step.

    python -m benchmarks.question_speed --model PE-Core-T-16-384

times, for a made-up memory on disk, what `marc.inference.assistant.VideoAssistant.ask` does before it decodes
anything: look at the file (here one of the micro-world), find its memory, embed the question, compare it with all
events, plan the frames. The model has random weights: they take as long as trained ones. Wall and processor time,
median of ``--repeats``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from marc.memory.embedder import EventEmbedder
from marc.memory.index import memory_settings
from marc.memory.options import MemoryOptions
from marc.memory.select import VisualMemoryRetriever, plan_frames
from marc.memory.store import VideoMemory, content_key, find_memory, memory_path, save_memory
from marc.types import Event
from marc.video import probe
from marc.world.export import write_sample

QUESTION = "What does the man in the red hat do after he has closed the door of the van?"
THUMBNAIL_BYTES = 4000


def made_up_memory(video: Path, events: int, embedder: EventEmbedder) -> VideoMemory:
    """A memory of this file with random vectors and pictures."""
    vectors = np.random.default_rng(0).standard_normal((events, embedder.dimension), dtype=np.float32)
    return VideoMemory(
        source=str(video),
        content=content_key(video),
        events=tuple(Event(8.0 * index, 8.0 * index + 8) for index in range(events)),
        embeddings=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        thumbnails=(b"\xff\xd8" + bytes(THUMBNAIL_BYTES) + b"\xff\xd9",) * events,
        settings=memory_settings(MemoryOptions(), embedder),
        versions={},
    )


def median_times(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median wall and processor milliseconds of a call; one call before that is not counted."""
    work()
    walls, processors = [], []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return 1000 * float(np.median(walls)), 1000 * float(np.median(processors))


def main() -> None:
    """Entry point of ``python -m benchmarks.question_speed``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="PE-Core-T-16-384", help="open_clip's name")
    parser.add_argument("--events", type=int, default=1000, help="events of the video; 1,000 are about two hours")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    embedder = EventEmbedder.untrained(options.model)
    retriever = VisualMemoryRetriever(embedder)
    with tempfile.TemporaryDirectory(prefix="marc-question-") as name:
        video = Path(name) / "video.mp4"
        video.write_bytes(b"\0" * 1_000_000)
        time.sleep(1.5)
        memory = made_up_memory(video, options.events, embedder)
        save_memory(memory, memory_path(video, memory.key))
        clip = Path(name) / "clip.mp4"
        write_sample(clip)
        retrieval = retriever.retrieve(memory, QUESTION)
        steps: dict[str, Callable[[], object]] = {
            "look at the file": lambda: probe(clip),
            "find its memory": lambda: find_memory(video, memory.settings),
            "embed the question and compare": lambda: retriever.retrieve(memory, QUESTION),
            "plan the frames": lambda: plan_frames(retrieval, mode="allocate", token_budget=128),
        }
        print(f"{options.model}, {options.events} events\n\n| step | wall ms | processor ms |\n|---|---|---|")
        for step, work in steps.items():
            print("| {} | {:.1f} | {:.1f} |".format(step, *median_times(work, options.repeats)))


if __name__ == "__main__":
    main()
