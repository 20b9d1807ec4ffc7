"""Asks one assistant for a long time, bad files among good ones, and measures whether anything piles up.

The assistant has the embedded model; the videos are generated. Each answer must be the one that the same question had
the first time, each bad file the documented error. After a warm-up, resident memory may drift by less than 1 %
between the first and the last quarter, that of the decoding processes by less than 10 %, and of file descriptors,
threads, child processes and temporary files there may never be more than before.

    python -m robustness.soak --questions 1500
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from marc.io import read_json
from robustness.report import Campaign, parser

if TYPE_CHECKING:
    from marc.inference.assistant import VideoAssistant

VIDEOS = 4
BLOCK = 10
"""Questions between two measurements."""
LARGEST_DRIFTS = {"memory": 0.01, "memory of children": 0.1}
"""Decoders keep what they need for the next file, so that a decoding process has more to forget than this one."""
COUNTED = ("file descriptors", "threads", "child processes", "temporary files")

Task = tuple[str, Any, str]
"""A name, what is asked about, and the question."""


def good_tasks(folder: Path) -> list[Task]:
    """Questions about generated videos, alone, two together, and about a stretch."""
    from marc.types import Clip
    from marc.world.export import write_sample

    tasks: list[Task] = []
    videos = []
    for seed in range(VIDEOS):
        video = folder / f"{seed}.mp4"
        questions = read_json(write_sample(video, seed=seed))["questions"]
        videos.append(video)
        tasks += [(f"video {seed}", video, row["problem"]) for row in questions]
        tasks.append((f"stretch {seed}", Clip(video, 2.0, 9.0), questions[0]["problem"]))
    tasks += [(f"two {a}", [videos[a], videos[a - 1]], "How many scenes are there?") for a in range(VIDEOS)]
    return tasks


def bad_tasks(folder: Path, random: Random) -> list[Task]:
    """Files that cannot be read, each made from a good one or from nothing."""
    content = (folder / "0.mp4").read_bytes()
    contents = {
        "empty.mp4": b"",
        "noise.mp4": random.randbytes(50_000),
        "cut.mp4": content[: len(content) // 3],
        "headless.mp4": content[2000:],
        "zeros.mp4": content[:200] + bytes(len(content)),
        "text.mp4": b"This is no video.\n" * 100,
        "picture.png": b"\x89PNG\r\n\x1a\n" + random.randbytes(500),
    }
    for name, damaged in contents.items():
        (folder / name).write_bytes(damaged)
    names = [*contents, "missing.mp4"]
    return [(f"bad {name}", folder / name, "What moves?") for name in names]


def measure(temporary: Path) -> dict[str, float]:
    """What the process and its children hold now, after what can be given back was."""
    import psutil

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    process = psutil.Process()
    children = process.children(recursive=True)
    return {
        "memory": process.memory_info().rss,
        "memory of children": 1 + sum(child.memory_info().rss for child in children),
        "file descriptors": process.num_fds(),
        "threads": process.num_threads(),
        "child processes": len(children),
        "temporary files": sum(1 for _ in temporary.rglob("*")),
    }


def drift(values: Sequence[float]) -> float:
    """Growth from the first to the last quarter of some values, by their medians."""
    quarter = max(1, len(values) // 4)
    return median(values[-quarter:]) / median(values[:quarter]) - 1


def judge(measured: Sequence[dict[str, float]]) -> list[str]:
    """What piled up in measurements of which the first third is the warm-up."""
    warm = len(measured) // 3
    if warm < 2:
        return ["too few questions to tell a drift: ask more of them"]
    problems = []
    for name, largest in LARGEST_DRIFTS.items():
        grown = drift([each[name] for each in measured[warm:]])
        if grown >= largest:
            problems.append(f"{name} grew by {grown:.2%}")
    for name in COUNTED:
        before, after = (max(each[name] for each in part) for part in (measured[:warm], measured[warm:]))
        if after > before:
            problems.append(f"{name}: {after:g} after the warm-up, {before:g} in it")
    return problems


def ask(assistant: VideoAssistant, task: Task) -> str:
    """The answer, or the documented error's kind."""
    name, video, question = task
    try:
        return assistant.ask(video, question).answer
    except ValueError as error:
        if not name.startswith("bad"):
            raise
        return f"{type(error).__name__}: {error}"


def soak(
    assistant: VideoAssistant,
    tasks: Sequence[Task],
    questions: int,
    random: Random,
    temporary: Path,
) -> tuple[list[str], dict[str, float]]:
    """Asks questions at random.

    Args:
        assistant: Who answers.
        tasks: What to ask.
        questions: How many questions.
        random: Chooses them.
        temporary: Folder of temporary files.

    Returns:
        What did not hold, and figures.
    """
    first: dict[str, str] = {}
    problems: list[str] = []
    seconds: list[float] = []
    measured = []
    for number in range(questions):
        task = random.choice(tasks)
        name = f"{task[0]}, {task[2]}"
        began = time.monotonic()
        try:
            answer = ask(assistant, task)
        except Exception as error:  # whatever it is, it is the finding
            problems.append(f"question {number} ({name}): {type(error).__name__}: {error}")
            continue
        seconds.append(time.monotonic() - began)
        if task[0].startswith("bad") != answer.startswith(("VideoError: ", "ValueError: ")):
            problems.append(f"question {number} ({name}) is answered with {answer!r}")
        if first.setdefault(name, answer) != answer:
            problems.append(f"question {number} ({name}): {answer!r}, but {first[name]!r} before")
        if number % BLOCK == BLOCK - 1:
            measured.append(measure(temporary))
            print(f"\r{number + 1} of {questions} questions", end="", file=sys.stderr)
    after = measured[len(measured) // 3 :]
    percentiles = quantiles(seconds, n=100)
    figures = {
        "questions": questions,
        "p50 seconds": round(percentiles[49], 3),
        "p99 seconds": round(percentiles[98], 3),
        "drift of memory": round(drift([each["memory"] for each in after]), 5),
        "drift of memory of children": round(drift([each["memory of children"] for each in after]), 5),
        **measured[-1],
    }
    return problems + judge(measured), figures


def run(campaign: Campaign, questions: int) -> None:
    """Soaks until the campaign is over."""
    for number, random in campaign.remaining():
        with tempfile.TemporaryDirectory(prefix="marc-soak-") as parent:
            folder, temporary = Path(parent, "videos"), Path(parent, "temporary")
            folder.mkdir()
            temporary.mkdir()
            tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
            os.environ["XDG_CACHE_HOME"] = str(Path(parent, "cache"))
            from marc import VideoAssistant

            tasks = good_tasks(folder)
            tasks += bad_tasks(folder, random) * 2
            assistant = VideoAssistant.from_pretrained()
            problems, figures = soak(assistant, tasks, questions, random, temporary)
            campaign.add(number, "questions", questions, problems, figures)
            tempfile.tempdir = None
            del os.environ["TMPDIR"]
        print("".join(f"\n{name:<30}{value:>16g}" for name, value in figures.items()))


def main() -> int:
    """Runs the program."""
    options = parser(__doc__, minutes=600)
    options.set_defaults(trials=1)
    options.add_argument("--questions", type=int, default=1500, help="questions of a trial (default 1500)")
    chosen = options.parse_args()
    logging.disable(logging.WARNING)
    campaign = Campaign.of("soak", chosen)
    run(campaign, chosen.questions)
    return campaign.finish()


if __name__ == "__main__":
    sys.exit(main())
