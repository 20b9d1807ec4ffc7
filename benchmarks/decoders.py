"""Compare the video decoders: which files each reads exactly, in what time, and what the killable process costs.

    python -m benchmarks.decoders FOLDER [FOLDER ...] [--frames 16] [--repeats 3]

prints the Markdown tables of docs/decoding.md. The truth about a file is its whole decoding in order, without a seek;
a frame is right if its time is that of the frame shown at the asked time and no other frame looks more like it.

Shapes: T frames of the file, K frames asked for, H height, W width, C = 3 colours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marc.types import Frames
from marc.video import VideoError, backends, frame_size, probe, read_frames, stream_frames
from marc.video.decoding import open_video
from marc.video.jobs import Probe
from marc.video.process import START_LIMIT, ProcessPool

MAX_PIXELS = 16 * 28 * 28
TIME_TOLERANCE = 2e-3
LOOK_TOLERANCE = 2.0


@dataclass(frozen=True)
class Trial:
    """One decoder on one file.

    Attributes:
        wrong: Frames that are not those shown at the asked times; None if the file was refused.
        asked: Frames that were asked for.
        seconds: Least wall time of a warm call, in seconds.
        cause: Why the file was refused.
    """

    wrong: int | None
    asked: int
    seconds: float
    cause: str = ""

    def __str__(self) -> str:
        if self.wrong is None:
            return "fails"
        verdict = "exact" if not self.wrong else f"**{self.wrong} of {self.asked} wrong**"
        return f"{verdict}, {1000 * self.seconds:.0f} ms"


def every_frame(path: Path) -> Frames:
    """The whole video in order, small."""
    info = probe(path)
    width, height = frame_size(info.width, info.height, max_pixels=MAX_PIXELS)
    batches = list(stream_frames(path, width=width, height=height))
    return Frames(
        np.concatenate([batch.rgb for batch in batches]),
        np.concatenate([batch.seconds for batch in batches]),
        str(path),
    )


def count_wrong(frames: Frames, truth: Frames, expected_K: NDArray[np.intp]) -> int:
    """How many frames differ from those of `truth` with the indices `expected_K`, in time or in looks."""
    wrong = 0
    for rgb_HWC, seconds, expected in zip(frames.rgb, frames.seconds, expected_K, strict=True):
        distance_T = np.abs(truth.rgb.astype(np.int16) - rgb_HWC).mean(axis=(1, 2, 3))
        looks_wrong = distance_T[expected] > distance_T.min() + LOOK_TOLERANCE
        wrong += bool(looks_wrong or abs(seconds - truth.seconds[expected]) > TIME_TOLERANCE)
    return wrong


def try_decoder(path: Path, truth: Frames, backend: str, *, frames: int, repeats: int) -> Trial:
    """Read frames spread over a file and compare them with its whole decoding.

    Args:
        path: The file.
        truth: All of its frames.
        backend: One of `marc.video.backends`.
        frames: How many to ask for.
        repeats: Calls of which the fastest is reported, after a first one that is not.
    """
    expected_K = np.linspace(0, len(truth) - 1, frames).round().astype(np.intp)
    asked_K = truth.seconds[expected_K] + TIME_TOLERANCE

    def read() -> Frames:
        return read_frames(path, asked_K, max_pixels=MAX_PIXELS, backend=backend)

    try:
        wrong = count_wrong(read(), truth, expected_K)
        return Trial(wrong, frames, min(timed(read) for _ in range(repeats)))
    except VideoError as error:
        return Trial(None, frames, 0.0, str(error).removeprefix(f"{path.absolute()}: ").rpartition(";")[0])


def timed(call: Callable[[], object]) -> float:
    """Wall time of a call, in seconds."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def table(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


def decoder_table(paths: list[Path], *, frames: int, repeats: int) -> str:
    """File by decoder: exact or not, and how long a call takes."""
    rows, causes = [["file", "picture", "frames", *backends()]], []
    for path in paths:
        info, truth = probe(path), every_frame(path)
        trials = [try_decoder(path, truth, backend, frames=frames, repeats=repeats) for backend in backends()]
        rows.append([path.name, f"{info.codec} {info.width}x{info.height}", str(len(truth)), *map(str, trials)])
        causes += [f"- `{path.name}`: {trial.cause}" for trial in trials if trial.cause]
    return "\n".join([table(rows), "", *causes])


def process_table(path: Path, *, repeats: int) -> str:
    """What a killable process costs, on one file."""

    def probe_here() -> None:
        with open_video(str(path)) as reader:
            assert reader.info.frame_count

    def start_process() -> None:
        pool = ProcessPool()
        list(pool.run(Probe(str(path.absolute())), START_LIMIT))
        pool.close()

    def stream() -> None:
        assert sum(len(batch) for batch in stream_frames(path, width=48, height=27))

    def stream_here() -> None:
        with open_video(str(path)) as reader:
            assert sum(1 for _ in reader.pictures_from(0.0))

    calls = {
        "start a process and probe in it": start_process,
        "probe in a warm process": lambda: probe(path),
        "probe in this process": probe_here,
        "stream all frames at 48x27": stream,
        "only decode them, in this process": stream_here,
    }
    rows = [[f"on {path.name}", "median, ms"]]
    for name, call in calls.items():
        call()
        rows.append([name, f"{1000 * float(np.median([timed(call) for _ in range(repeats)])):.1f}"])
    return table(rows)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    paths = sorted(path for folder in arguments.folders for path in folder.iterdir() if path.is_file())
    print(decoder_table(paths, frames=arguments.frames, repeats=arguments.repeats), end="\n\n")
    print(process_table(max(paths, key=lambda path: path.stat().st_size), repeats=max(5, arguments.repeats)))


if __name__ == "__main__":
    main()
