"""Questions a second of ``marc data teacher`` in this checkout against another one, side by side.

    git worktree add ../before COMMIT
    python -m benchmarks.teacher_speed --against ../before [--videos 16] [--questions 4] [--rounds 3]

writes generated videos and rows about them, and has the embedded model answer each row eight times, in each checkout
in a process of its own; the checkout that begins changes from round to round. Time counts from the first question to
the last, the model and the libraries that grade being loaded; processor time is that of the process and of those that
decode for it. PyTorch has one thread; what decodes beside it uses another core. The answers of both are compared.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.checkouts import HERE, measure
from marc.world.export import write_sample

WORKER = Path(__file__).with_name("timed_teacher.py")


@dataclass(frozen=True)
class Run:
    """How a checkout answered all rows.

    Attributes:
        wall: Seconds.
        processor: Seconds of the process and its children.
        answers: To each row.
    """

    wall: float
    processor: float
    answers: list[list[str]] = field(repr=False)


def write_rows(folder: Path, videos: int, questions: int) -> Path:
    """Videos of half a minute, and a file of rows with so many questions about each."""
    rows = []
    for seed in range(videos):
        asked = write_sample(folder / f"{seed}.mp4", seed=seed, questions=questions)
        rows += json.loads(asked.read_text(encoding="utf-8"))["questions"]
    file = folder / "rows.json"
    file.write_text(json.dumps([{**row, "problem_id": number} for number, row in enumerate(rows)]), encoding="utf-8")
    return file


def run(checkout: Path, rows: Path, options: Sequence[str] = ()) -> Run:
    """Has a checkout answer a file of rows, of which it knows no result.

    Raises:
        subprocess.CalledProcessError: If it fails; its output has been printed.
    """
    with tempfile.TemporaryDirectory(prefix="marc-teacher-") as name:
        arguments = [str(rows), str(Path(name) / "taught.json"), *options]
        measured = measure(WORKER, checkout, Path(name), arguments)
    return Run(measured["wall"], measured["processor"], measured["answers"])


def table(here: Sequence[Run], there: Sequence[Run], name: str) -> str:
    """Questions a second of both, medians over the rounds, and their ratio with its range over the rounds."""
    rows = len(here[0].answers)
    lines = [f"| {rows} rows, {len(here)} rounds | here | {name} | times [range] |", "|---|---|---|---|"]
    for title in ("wall", "processor"):
        own, other = ([getattr(each, title) for each in runs] for runs in (here, there))
        times = [slow / quick for quick, slow in zip(own, other, strict=True)]
        lines.append(
            f"| questions a second ({title}) | {rows / median(own):.2f} | {rows / median(other):.2f} "
            f"| {median(times):.2f} [{min(times):.2f}, {max(times):.2f}] |"
        )
    equal = sum(one == other for one, other in zip(here[0].answers, there[0].answers, strict=True))
    return "\n".join([*lines, f"{equal} of {rows} rows have the same answers."])


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.teacher_speed``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, help="folder of the other checkout")
    parser.add_argument("--videos", type=int, default=16)
    parser.add_argument("--questions", type=int, default=4, help="about each video (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each checkout (default: %(default)s)")
    asked = parser.parse_args(arguments)
    checkouts = {"here": HERE, "there": asked.against.resolve()}
    runs: dict[str, list[Run]] = {"here": [], "there": []}
    with tempfile.TemporaryDirectory(prefix="marc-rows-") as folder:
        rows = write_rows(Path(folder), asked.videos, asked.questions)
        for number in range(asked.rounds):
            for side, checkout in sorted(checkouts.items(), reverse=number % 2 == 1):
                runs[side].append(run(checkout, rows))
                print(f"round {number + 1}: {checkout} {runs[side][-1]}", file=sys.stderr, flush=True)
    print(table(runs["here"], runs["there"], str(asked.against)))


if __name__ == "__main__":
    main()
