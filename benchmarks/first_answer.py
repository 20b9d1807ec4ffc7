"""How long the first question about a new long video waits for its answer, with and without `--wait`, and before.

    git worktree add ../before COMMIT
    python -m benchmarks.first_answer --minutes 60 --against ../before

The video is H.264 with a cut every ten seconds, written once; its memory is deleted before every question. Counted
are seconds on the clock and of processors (of the command and its decoder) until the answer stands on its output; the
content's hash is not kept from one question to the next. A command is ended when it has answered. One event is
retrieved, as older checkouts refuse three where the budget is smaller.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer

from benchmarks.checkouts import HERE
from benchmarks.segmentation_speed import SIZES, write_long_video

QUESTION = "What is shown?"


def main(
    minutes: Annotated[int, typer.Option(min=3, help="Length of the video.")] = 60,
    size: Annotated[str, typer.Option(help=f"One of {', '.join(SIZES)}.")] = "1080p",
    repeats: Annotated[int, typer.Option(min=1, help="Questions of each kind.")] = 1,
    against: Annotated[Path | None, typer.Option(help="Another checkout, which is asked, too.")] = None,
) -> None:
    """Print what each kind of question takes, and its part of the slowest's."""
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "new.mp4"
        write_long_video(video, SIZES[size], 60 * minutes)
        kinds = {"at once": (HERE, ()), "--wait": (HERE, ("--wait",))}
        if against is not None:
            kinds[str(against)] = (against, ())
        for repeat in range(repeats):
            print(f"\n| question {repeat + 1}, {minutes} min of {size} | s on the clock | s of processors |")
            print("|---|---|---|")
            for name, (checkout, options) in kinds.items():
                clock, processors = until_answered(checkout, video, options)
                print(f"| {name} | {clock:.1f} | {processors:.1f} |", flush=True)


def until_answered(checkout: Path, video: Path, options: tuple[str, ...]) -> tuple[float, float]:
    """Seconds on the clock and of processors that a checkout's ``marc ask`` takes about a video that is new to it.

    Raises:
        subprocess.CalledProcessError: If there is no answer; why has been printed.
    """
    command = [sys.executable, "-m", "marc.cli", "ask", str(video), QUESTION, "--k", "1", *options]
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": cache}
        begun = time.perf_counter()
        with subprocess.Popen(command, cwd=video.parent, env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            answer = process.stdout.readline()
            clock = time.perf_counter() - begun
            processors = 0.0 if process.poll() is not None else _processor_seconds(psutil.Process(process.pid))
            process.terminate()
    for memory in video.parent.glob(f"{video.name}.*"):
        memory.unlink()
    if not answer.strip():
        raise subprocess.CalledProcessError(process.returncode, command)
    return clock, processors


def _processor_seconds(process: psutil.Process) -> float:
    """Of a process and its living children."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


if __name__ == "__main__":
    typer.run(main)
