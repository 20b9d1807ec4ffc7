"""What watching costs hour after hour: speed, memory, how soon events are closed and questions answered.

Writes an H.264 video of several hours (generated shots, repeated: a cut every ten seconds), watches it
as ``marc watch`` does, as fast as it goes or at a speed, and asks the embedded model a question every minute of the
video. A row is printed for every part of the video, so a run that is stopped has said what it knows. Processor time
counts the decoder's process; unlike the clock it holds on a machine that does other work.

Run: ``python -m benchmarks.watch_benchmark --hours 1``; the result is in docs/watch.md.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer

from benchmarks.segmentation_speed import SIZES, cpu_seconds, write_long_video
from marc import VideoAssistant
from marc.memory.embedder import EventEmbedder
from marc.memory.live import LiveMemory, LiveOptions, Source
from marc.memory.live.following import follow_file
from marc.memory.options import MemoryOptions

WEIGHED_EVERY = 2.0
"""Seconds of the video from one look at the memory that is used to the next."""
QUESTION = "What happens in the striped scene?"
NEAR = 0.5
"""Seconds by which an event's end may miss a cut to be that cut's."""
COLUMNS = (
    "hours seen",
    "x real time, clock",
    "x real time, processor",
    "this process, MB",
    "decoder, MB",
    "events kept",
    "cuts found",
    "closed after, s: mean",
    "most",
    "answer, s: median",
    "most",
    "behind, s: most",
)
NO_PACE = 100.0
"""A speed from which on it is only asked how fast it goes."""


@dataclass
class Part:
    """What was measured since the last row.

    Attributes:
        start: Time of the video, the clock and the processor at its beginning.
        resident: Most bytes that this process and its decoder held.
        delays: Seconds of the video from cuts until their events were closed, and by which watching was behind then.
        behind: Most seconds by which watching was behind the speed.
        answers: Seconds from the last frame to answers.
    """

    start: tuple[float, float, float]
    resident: tuple[int, int] = (0, 0)
    behind: float = 0.0
    delays: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Pace:
    """How a video is watched.

    Attributes:
        shot_seconds: From one cut to the next.
        ask_every: Seconds of the video between questions.
        row_seconds: Seconds of the video of a row.
        speed: At which it is played.
    """

    shot_seconds: float
    ask_every: float
    row_seconds: float
    speed: float


class Watcher:
    """Asks and measures while a video is watched.

    Args:
        memory: Grows.
        assistant: Is asked; None: nobody asks.
        pace: How the video is watched.
    """

    def __init__(self, memory: LiveMemory, assistant: VideoAssistant | None, pace: Pace) -> None:
        self._memory, self._assistant, self._pace = memory, assistant, pace
        self._begun: tuple[float, float] | None = None
        self._next_question, self._next_weighing, self._closed = pace.ask_every, 0.0, 0
        self._part = self._begin()

    def tick(self) -> None:
        """Looks at what has happened since the last time."""
        memory, part, behind = self._memory, self._part, self._behind()
        part.behind = max(part.behind, behind)
        if memory.closed > self._closed:
            end = memory.snapshot().events[-1].span.end
            if abs(end - round(end / self._pace.shot_seconds) * self._pace.shot_seconds) <= NEAR:
                part.delays.append(memory.until - end + behind)
            self._closed = memory.closed
        if self._assistant is not None and memory.until >= self._next_question:
            begin = time.perf_counter()
            self._assistant.ask(memory, QUESTION)
            part.answers.append(time.perf_counter() - begin)
            self._next_question += self._pace.ask_every
        if memory.until >= self._next_weighing:
            own = psutil.Process()
            decoders = sum(child.memory_info().rss for child in own.children(recursive=True))
            part.resident = (max(part.resident[0], own.memory_info().rss), max(part.resident[1], decoders))
            self._next_weighing = memory.until + WEIGHED_EVERY
        if memory.until - part.start[0] >= self._pace.row_seconds:
            self.print_row()

    def _behind(self) -> float:
        """Seconds of the video by which watching is behind the speed at which it is played."""
        if self._pace.speed >= NO_PACE:
            return 0.0
        now = time.perf_counter()
        if self._begun is None:
            self._begun = now, self._memory.until
        return max(0.0, self._begun[1] + (now - self._begun[0]) * self._pace.speed - self._memory.until)

    def print_row(self) -> None:
        """Prints what was measured, and begins anew."""
        part, memory = self._part, self._memory
        seen = memory.until - part.start[0]
        wall, processor = time.perf_counter() - part.start[1], cpu_seconds() - part.start[2]
        cells = [f"{memory.until / 3600:.3f}", f"{seen / wall:.1f}", f"{seen / processor:.1f}"]
        cells += [f"{size / 2**20:.1f}" for size in part.resident]
        cells += [f"{len(memory.snapshot().events)}", f"{len(part.delays)} of {round(seen / self._pace.shot_seconds)}"]
        for seconds, middle in ((part.delays, np.mean), (part.answers, np.median)):
            cells += [f"{middle(seconds):.2f}", f"{max(seconds):.2f}"] if seconds else ["", ""]
        cells.append(f"{part.behind:.2f}" if self._pace.speed < NO_PACE else "")
        print(f"| {' | '.join(cells)} |", flush=True)
        self._part = self._begin()

    def _begin(self) -> Part:
        return Part((self._memory.until, time.perf_counter(), cpu_seconds()))


def main(
    hours: Annotated[float, typer.Option(min=0.005, help="Length of the video.")] = 1.0,
    speed: Annotated[float, typer.Option(min=0.1, help="Times faster than recorded, at most.")] = 1000.0,
    fps: Annotated[int, typer.Option(min=1, help="Of the video.")] = 25,
    shots: Annotated[int, typer.Option(min=1, help="Different ones; how much moves differs from one to another.")] = 1,
    shot_seconds: Annotated[int, typer.Option(min=1, help="From one cut to the next.")] = 10,
    size: Annotated[str, typer.Option(help=f"One of {', '.join(SIZES)}.")] = "480p",
    embedder: Annotated[str, typer.Option(help="tiny; or PE-Core-T-16-384, with random weights.")] = "tiny",
    rows: Annotated[int, typer.Option(min=1, help="Of the table.")] = 10,
    ask_every: Annotated[float, typer.Option(min=1, help="Seconds of the video between questions.")] = 60.0,
    memory_mib: Annotated[float, typer.Option(help="As in `marc watch`.")] = LiveOptions.memory_mib,
) -> None:
    """Watch a long video and print what every part of it cost."""
    encoder = EventEmbedder.from_pretrained("tiny") if embedder == "tiny" else EventEmbedder.untrained(embedder)
    assistant = VideoAssistant.from_pretrained(device="cpu") if embedder == "tiny" else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.mp4"
        write_long_video(path, SIZES[size], round(3600 * hours), clip_seconds=shot_seconds, fps=fps, shots=shots)
        options = LiveOptions(memory_mib=memory_mib)
        cutting = MemoryOptions(seconds_per_frame=2.0)
        memory = LiveMemory("long", encoder, options, cutting, source=Source(str(path), fps), folder=folder)
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
        watcher = Watcher(memory, assistant, Pace(shot_seconds, ask_every, 3600 * hours / rows, speed))
        follow_file(path, memory, speed=speed, tick=watcher.tick)
        watcher.print_row()
        memory.close()


if __name__ == "__main__":
    typer.run(main)
