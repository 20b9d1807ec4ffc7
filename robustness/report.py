"""What a campaign did, a line of JSON for each trial, so that it can be stopped at any moment and go on later.

A trial is known by its number alone: campaign, seed and number say all that it does. A line is a `Trial`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from marc.io import append_line, drop_torn_line, make_folders, whole_lines


@dataclass(frozen=True)
class Trial:
    """One trial of a campaign.

    Attributes:
        number: Its number; with the campaign's name and seed it says all that was done.
        kind: What was attacked.
        tried: How often in this trial, in the campaign's unit.
        failures: What did not hold, a text each; empty if all did.
        measured: Numbers besides, by name.
        seconds: How long it took.
    """

    number: int
    kind: str
    tried: int
    failures: tuple[str, ...]
    measured: dict[str, float]
    seconds: float


class Campaign:
    """A campaign's trials, those of earlier starts included.

    Args:
        name: What the campaign is called.
        seed: Of all its trials.
        output: File of JSON lines; made if it is not there.
        minutes: How long to go on from now.
        total: Number of trials after which it is over; None goes on for as long as there is time.

    Raises:
        ValueError: The file holds another campaign, or one of another seed.
    """

    def __init__(self, name: str, seed: int, output: Path, minutes: float, total: int | None = None) -> None:
        self.name, self.seed, self.output, self.total = name, seed, output, total
        self._end = time.monotonic() + 60 * minutes
        self._began = time.monotonic()
        make_folders(output.parent)
        drop_torn_line(output)
        if not output.exists() or not whole_lines(output):
            append_line(output, self._head)
        head, *lines = whole_lines(output)
        if head.decode() != self._head:
            raise ValueError(f"{output} holds another campaign or seed: name another file (--output), or delete it")
        self.trials = [Trial(**{**row, "failures": tuple(row["failures"])}) for row in map(json.loads, lines)]

    @classmethod
    def of(cls, name: str, options: argparse.Namespace) -> Campaign:
        """The campaign that a program's options ask for, see `parser`."""
        output = Path(options.output or f"runs/robustness/{name}-{options.seed}.jsonl")
        return cls(name, options.seed, output, options.minutes, options.trials)

    @property
    def _head(self) -> str:
        return json.dumps({"campaign": self.name, "seed": self.seed})

    def remaining(self) -> Iterator[tuple[int, Random]]:
        """Numbers of the trials that are to come, each with its source of random numbers, until the time is over."""
        done = {trial.number for trial in self.trials}
        number = 0
        while time.monotonic() < self._end and (self.total is None or number < self.total):
            if number not in done:
                self._began = time.monotonic()
                yield number, self.random(number)
            number += 1

    def random(self, *what: object) -> Random:
        """A source of random numbers that follows from the campaign, its seed and what is given."""
        return Random(f"{self.name} {self.seed} {what}")

    def add(
        self, number: int, kind: str, tried: int, failures: Sequence[str], measured: dict[str, float] | None = None
    ) -> None:
        """Keeps what came of a trial, and tells it on stderr."""
        seconds = round(time.monotonic() - self._began, 3)
        trial = Trial(number, kind, tried, tuple(failures), measured or {}, seconds)
        self.trials.append(trial)
        append_line(self.output, json.dumps(asdict(trial)))
        left = max(0.0, self._end - time.monotonic()) / 60
        failed = sum(bool(each.failures) for each in self.trials)
        end = "\n" if failures or (not sys.stderr.isatty() and number % 100 == 0) else ""
        for failure in failures:
            print(f"\n{self.name} seed {self.seed} trial {number} ({kind}): {failure}", file=sys.stderr)
        if sys.stderr.isatty() or end:
            print(f"\r{len(self.trials)} trials, {failed} failed, {left:.1f} min left ", end=end, file=sys.stderr)

    def finish(self) -> int:
        """Prints the table of what was done, and gives the exit status: 1 if anything failed."""
        tried: Counter[str] = Counter()
        trials: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        for trial in self.trials:
            tried[trial.kind] += trial.tried
            trials[trial.kind] += 1
            failed[trial.kind] += bool(trial.failures)
        print(f"\n{self.name}, seed {self.seed}, {sum(each.seconds for each in self.trials) / 60:.1f} min")
        print(f"{'kind':<24}{'trials':>10}{'tried':>10}{'failed':>10}")
        for kind in sorted(trials):
            print(f"{kind:<24}{trials[kind]:>10}{tried[kind]:>10}{failed[kind]:>10}")
        print(f"{'all':<24}{trials.total():>10}{tried.total():>10}{failed.total():>10}")
        return 1 if failed.total() else 0


def memory_folder() -> str | None:
    """Where temporary folders are in memory, so that a campaign does not wait for a disk; None if nowhere."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def parser(description: str | None, minutes: float) -> argparse.ArgumentParser:
    """What all campaigns' programs have as options.

    Args:
        description: What the program does.
        minutes: How long it goes on by default.
    """
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=minutes, help=f"how long to go on (default {minutes:g})")
    options.add_argument("--seed", type=int, default=0, help="another seed makes other trials (default 0)")
    options.add_argument("--trials", type=int, help="end after so many trials, those of earlier starts included")
    options.add_argument("--output", help="file of JSON lines to go on with (default runs/robustness/NAME-SEED.jsonl)")
    return options
