"""Processor time and peak memory of a training step in this checkout against another one, side by side.

    git worktree add ../before COMMIT
    python -m benchmarks.training_step --against ../before [--rounds 3] [--steps 4] [-- --any_option of the script]

Each round starts the same recipe once in each checkout, in a process of its own with one thread, and the checkout that
begins changes from round to round. A process runs its checkout's own script and recipe, on the same interpreter and
libraries; its first step stands by itself, for there the online teacher is asked. What other programs do on the
machine does not count as processor time; processes that a run starts itself (decoders, data loaders) do not, either.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.checkouts import HERE, measure

WORKER = Path(__file__).with_name("timed_training.py")
OF_THE_RUN = {"output_dir", "logging_dir", "run_name"}
"""Resolved options that differ in any case."""


@dataclass(frozen=True)
class Shape:
    """What is run in both checkouts.

    Attributes:
        script: The training script, in a checkout.
        config: Its recipe, in a checkout.
        steps: Optimizer steps.
        options: Further options of the script.
    """

    script: str = "training_script/grpo.py"
    config: str = "configs/grpo_world.yaml"
    steps: int = 4
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"--steps must be at least 2: the first is not like the others; got {self.steps}")

    def arguments(self, checkout: Path, output: Path) -> list[str]:
        """The script with its options; nothing is saved on the way and every step is logged."""
        quiet = ["--save_strategy", "no", "--report_to", "none", "--logging_steps", "1"]
        run = ["--config", str(checkout / self.config), "--output_dir", str(output), "--max_steps", str(self.steps)]
        return [str(checkout / self.script), *run, *quiet, *self.options]


@dataclass(frozen=True)
class Run:
    """One run of one checkout.

    Attributes:
        steps: Processor seconds of each step.
        training: Of the training, from its start to its end.
        process: Of the process, imports included.
        peak_bytes: Most resident memory of the process.
        answer_tokens: Mean length of the answers, if there are any: steps of longer answers take longer.
        gradient_norms: By step; equal ones say that the same was computed.
        parts: Processor seconds of the parts of a step after the first, on average, and of what is in none of them.
        options: Resolved options of the run.
    """

    steps: tuple[float, ...]
    training: float
    process: float
    peak_bytes: int
    answer_tokens: float
    gradient_norms: tuple[float, ...]
    parts: dict[str, float]
    options: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Pair:
    """The runs of one round."""

    here: Run
    there: Run


ROWS: dict[str, Callable[[Run], float]] = {
    "step after the first, median, s": lambda run: statistics.median(run.steps[1:]),
    "first step, s": lambda run: run.steps[0],
    "all training, s": lambda run: run.training,
    "whole process, s": lambda run: run.process,
    "peak resident memory, MB": lambda run: run.peak_bytes / 1e6,
    "tokens of an answer, mean": lambda run: run.answer_tokens,
    "gradient norm of the first step": lambda run: run.gradient_norms[0],
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, help="folder of the other checkout")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each checkout (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=Shape.steps, help="of each run (default: %(default)s)")
    parser.add_argument("--script", default=Shape.script, help="in a checkout (default: %(default)s)")
    parser.add_argument("--config", default=Shape.config, help="in a checkout (default: %(default)s)")
    parser.add_argument("options", nargs="*", help="after --: further options of the script")
    asked = parser.parse_args(arguments)
    try:
        shape = Shape(asked.script, asked.config, asked.steps, tuple(asked.options))
        pairs = compare(asked.against.resolve(), shape, asked.rounds)
    except ValueError as error:
        parser.error(str(error))
    print(table(pairs, str(asked.against)))
    for difference in differences(pairs[0]):
        print(f"The recipes differ in {difference}")


def compare(there: Path, shape: Shape, rounds: int) -> list[Pair]:
    """Runs both checkouts in turn.

    Args:
        there: The other checkout.
        shape: What is run.
        rounds: How often.

    Raises:
        ValueError: If the other folder has no such script or recipe, or nothing is to be run.
        subprocess.CalledProcessError: If a run fails; its output has been printed.
    """
    if rounds < 1:
        raise ValueError(f"--rounds must be at least 1, got {rounds}")
    for checkout in (HERE, there):
        for name in (shape.script, shape.config):
            if not (checkout / name).is_file():
                raise ValueError(f"{checkout} has no {name}")
    pairs = []
    for number in range(rounds):
        runs = {}
        for side, checkout in sorted({"here": HERE, "there": there}.items(), reverse=number % 2 == 1):
            print(f"round {number + 1} of {rounds}: {checkout}", file=sys.stderr, flush=True)
            runs[side] = run(checkout, shape)
        pairs.append(Pair(**runs))
    return pairs


def run(checkout: Path, shape: Shape) -> Run:
    """Runs one checkout in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="marc-step-") as name:
        output = Path(name) / "run"
        measured = measure(WORKER, checkout, Path(name), shape.arguments(checkout, output))
        options = yaml.safe_load((output / "config.yaml").read_text(encoding="utf-8"))
    lengths = measured["completions/mean_length"]
    return Run(
        steps=tuple(measured["steps"]),
        training=measured["training"],
        process=measured["process"],
        peak_bytes=measured["peak_bytes"],
        answer_tokens=statistics.fmean(lengths) if lengths else 0.0,
        gradient_norms=tuple(measured["grad_norm"]),
        parts=_parts(measured["parts"], measured["steps"][1:]),
        options=options,
    )


def _parts(seconds: dict[str, float], steps: Sequence[float]) -> dict[str, float]:
    """Of an average step."""
    if not seconds:
        return {}
    parts = {name: total / len(steps) for name, total in seconds.items()}
    return {**parts, "the rest": statistics.fmean(steps) - sum(parts.values())}


def table(pairs: Sequence[Pair], there: str) -> str:
    """Medians over the rounds, and the other checkout's as a multiple of this one's with its range over the rounds."""
    lines = [f"| {len(pairs)} rounds, one thread | here | {there} | times [range] |", "|---|---|---|---|"]
    parts = dict.fromkeys(name for pair in pairs for run in (pair.here, pair.there) for name in run.parts)
    rows: dict[str, Callable[[Run], float]] = {**ROWS}
    rows |= {f"a step's {name}, s": partial(_part, name) for name in parts}
    for title, value in rows.items():
        own, other = ([value(run) for run in runs] for runs in zip(*((p.here, p.there) for p in pairs), strict=True))
        multiples = [after / before for before, after in zip(own, other, strict=True) if before]
        times = f"{statistics.median(multiples):.2f} [{min(multiples):.2f}, {max(multiples):.2f}]" if multiples else ""
        lines.append(f"| {title} | {statistics.median(own):.4g} | {statistics.median(other):.4g} | {times} |")
    return "\n".join(lines)


def _part(name: str, run: Run) -> float:
    return run.parts.get(name, 0.0)


def differences(pair: Pair) -> list[str]:
    """Resolved options that both runs have with different values."""
    here, there = pair.here.options, pair.there.options
    shared = sorted(here.keys() & there.keys() - OF_THE_RUN)
    return [f"{name}: {here[name]!r} here, {there[name]!r} there" for name in shared if here[name] != there[name]]


if __name__ == "__main__":
    main()
