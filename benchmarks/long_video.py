"""How much memory a video of many hours takes while it is remembered.

Writes a small H.264 video (a generated shot of a minute, repeated: a cut a minute), remembers it as ``marc remember``
does, and prints at every tenth of it the most resident memory that this process and its decoder have held since the
last: what grows with the video shows as a rise from row to row.

Run: ``python -m benchmarks.long_video --hours 10``; the result is in docs/memory.md.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer

from benchmarks.segmentation_speed import cpu_seconds, write_long_video
from marc.memory.embedder import EventEmbedder
from marc.memory.index import build_memory
from marc.memory.options import MemoryOptions

WIDTH, HEIGHT, FPS, CLIP_SECONDS = 160, 90, 10, 60
ROWS = 10


class MemoryWatch:
    """A `marc.memory.shots.Progress` that prints the largest resident memory of every tenth of a video."""

    def __init__(self, hours: float) -> None:
        self._hours = hours
        self._row = 1
        self._largest = [0, 0]

    def __call__(self, share: float) -> None:
        """Measure, and print where another tenth has been read."""
        own = psutil.Process()
        decoders = sum(child.memory_info().rss for child in own.children(recursive=True))
        self._largest = [max(pair) for pair in zip(self._largest, [own.memory_info().rss, decoders], strict=True)]
        if share >= self._row / ROWS:
            cells = " | ".join(f"{size / 2**20:.0f}" for size in self._largest)
            print(f"| {self._hours * self._row / ROWS:g} | {cells} |", flush=True)
            self._row, self._largest = self._row + 1, [0, 0]


def main(
    hours: Annotated[float, typer.Option(min=CLIP_SECONDS / 3600, help="Length of the video.")] = 10,
    embedder: Annotated[str, typer.Option(help="As in `marc remember`.")] = "tiny",
    segmenter: Annotated[str, typer.Option(help="As in `marc remember`.")] = "transnetv2",
) -> None:
    """Print the memory held in every tenth of a long video, and the processor time of all of it."""
    loaded = EventEmbedder.from_pretrained(embedder)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.mp4"
        write_long_video(path, (WIDTH, HEIGHT), round(3600 * hours), clip_seconds=CLIP_SECONDS, fps=FPS)
        print("| hours read | this process, MB | decoder, MB |\n|---|---|---|", flush=True)
        started, watch = (time.perf_counter(), cpu_seconds()), MemoryWatch(hours)
        memory = build_memory(path, loaded, MemoryOptions(segmenter=segmenter), progress=watch)
        watch(1.0)
        wall, processor = time.perf_counter() - started[0], cpu_seconds() - started[1]
    print(f"{len(memory.events)} events, {processor:.0f} s of processor time, {wall:.0f} s on the clock")


if __name__ == "__main__":
    typer.run(main)
