"""What a command costs from its start to its end, against another checkout: processor seconds of the whole process.

    git worktree add ../before COMMIT
    python -m benchmarks.startup_benchmark --against ../before

Both checkouts run under this Python, in turn, each with a clip of the micro-world that it has remembered itself.
Bytecode is compiled by a run that is not counted; ``--no-bytecode`` measures the first run after a set-up that
compiles nothing. Seconds are those of processors, of the process and its children: waiting says nothing about the
command.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.paired import Spread, ratios, spread

ROOT = Path(__file__).resolve().parents[1]
CLIP = "clip.mp4"
PREPARATION = (("world", "sample", CLIP), ("remember", CLIP))
SLOW_HELP = ("train", "sft", "--help")

Row = tuple[Spread, Spread, Spread]
"""Seconds of the other checkout, ours, and our part of theirs."""


@dataclass(frozen=True)
class Case:
    """A command, and the one of the other checkout that it is compared with.

    Attributes:
        command: Behind ``marc``.
        against: Likewise; empty: the same.
    """

    command: tuple[str, ...]
    against: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = " ".join(f'"{word}"' if " " in word else word for word in self.command)
        return f"marc {words}" + (f" (against {' '.join(self.against)})" if self.against else "")


CASES = (
    Case(("ask", CLIP, "What happens in the plain scene?")),
    Case(("recall", "a red cross")),
    Case(SLOW_HELP),
    Case(("train", "grpo", "--help"), SLOW_HELP),
    Case(("eval", "--help"), SLOW_HELP),
    Case(("ask", "--help"), SLOW_HELP),
    Case(("--help",), SLOW_HELP),
)


@dataclass(frozen=True)
class Checkout:
    """Where commands run.

    Attributes:
        root: Of the source.
        folder: Holds the clip and its memory.
        bytecode: Where it is kept; None: nowhere.
    """

    root: Path
    folder: Path
    bytecode: Path | None

    def seconds(self, command: Sequence[str]) -> float:
        """Processor seconds of a command.

        Raises:
            RuntimeError: It failed.
        """
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        compiled = {"PYTHONPYCACHEPREFIX": str(self.bytecode or self.folder / "none")}
        kept = {} if self.bytecode else {"PYTHONDONTWRITEBYTECODE": "1"}
        own = {"PYTHONPATH": str(self.root), "MARC_LIBRARY": str(self.folder / "library"), "HF_HUB_OFFLINE": "1"}
        before = _children_seconds()
        done = subprocess.run(
            [sys.executable, "-m", "marc.cli", *command],
            cwd=self.folder,
            env={**environment, **compiled, **kept, **own},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{self.root}: marc {' '.join(command)}: {done.stderr[-1000:]}")
        return _children_seconds() - before


def compare(ours: Checkout, theirs: Checkout, cases: Sequence[Case], repeats: int) -> list[Row]:
    """Measures each case in both checkouts, in turn."""
    for checkout in (theirs, ours):
        for command in dict.fromkeys([*PREPARATION, *(case.command for case in cases)]):
            checkout.seconds(command)
    rows = []
    for case in cases:
        measured = [(theirs.seconds(case.against or case.command), ours.seconds(case.command)) for _ in range(repeats)]
        other, own = zip(*measured, strict=True)
        rows.append((spread(other), spread(own), ratios(own, other)))
    return rows


def table(cases: Sequence[Case], rows: Sequence[Row]) -> str:
    """The comparison in Markdown."""
    lines = ["| command | before, s | now, s | now / before |", "|---|---|---|---|"]
    for case, (other, own, ratio) in zip(cases, rows, strict=True):
        part = f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
        lines.append(f"| `{case}` | {other.median:.2f} | {own.median:.2f} | {part} |")
    return "\n".join(lines)


def main() -> None:
    """Entry point of ``python -m benchmarks.startup_benchmark``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--against", type=Path, required=True, help="folder of the other checkout")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each command")
    parser.add_argument("--no-bytecode", action="store_true", help="compile every module in every run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="marc-startup-") as name:
        bytecode = None if options.no_bytecode else Path(name) / "bytecode"
        ours = Checkout(ROOT, Path(name) / "now", bytecode)
        theirs = Checkout(options.against.resolve(), Path(name) / "before", bytecode)
        for checkout in (ours, theirs):
            checkout.folder.mkdir()
        print(table(CASES, compare(ours, theirs, CASES, options.repeats)))


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
