"""The ablation from start to end: data, arms, measurements, report. Every finished stage and arm is kept.

    marc world ablation --output runs/ablation --seeds 3

A killed run goes on where it was: what is finished (memories, the teacher's accuracies, stages, arms) is not
done again. Arms of one seed and layout share their first stage.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.ablation.context import Context
from experiments.ablation.heldout import agreement, found_cuts
from experiments.ablation.settings import ARMS, START, AblationSettings, Condition, to_json
from experiments.kept_settings import keep_settings
from marc.io import write_json

FILES_ASKED = 4
"""Held-out files about which the assistant is asked too, as a check of the measurement."""

_OPEN: list[Context] = []


def _open(settings: AblationSettings, output: Path) -> None:
    """Makes the context of this process, which computes on one core so that its time can be compared."""
    torch.set_num_threads(1)
    _OPEN.append(Context(settings, output))


def _work(seed: int, group: str) -> list[str]:
    """Trains and measures the arms of one seed and group; a line for each."""
    (context,) = _OPEN
    return [line_of(context.outcome(arm, seed)) for arm in ARMS if arm.group == group]


def line_of(row: dict[str, Any]) -> str:
    """An outcome in a line."""
    steps = "+".join(str(stage["steps"]) for stage in row["stages"]) or "0"
    accuracies = ", ".join(f"{name} {100 * value:.1f}" for name, value in row["accuracy"].items())
    return f"{row['arm']}, seed {row['seed']}, {steps} steps: {accuracies}"


def run_ablation(
    settings: AblationSettings, output: Path, *, workers: int = 1, log: Callable[[str], None] = print
) -> dict[str, Any]:
    """Runs what has not been run, and gathers everything.

    Args:
        settings: The experiment; a folder holds one.
        output: Its folder.
        workers: Processes of one thread that train arms.
        log: Receives lines of progress.

    Returns:
        What ``results.json`` holds.

    Raises:
        ValueError: If the folder holds another experiment.
    """
    output.mkdir(parents=True, exist_ok=True)
    check_same_experiment(settings, output)
    _open(settings, output)
    context = _OPEN.pop()
    jobs = [(seed, group) for seed in settings.seeds for group in dict.fromkeys(arm.group for arm in ARMS)]
    done = [context.outcome_file(arm, seed).exists() for arm in ARMS for seed in settings.seeds]
    log(f"{len(done)} arms of {settings.seconds:g} processor seconds each, {sum(done)} finished already")
    check = prepare(context, log)
    if workers == 1:
        _OPEN.append(context)
        report_progress((_work(*job) for job in jobs), len(done), log)
        _OPEN.pop()
    else:
        spawn = get_context("spawn")
        with ProcessPoolExecutor(workers, spawn, initializer=_open, initargs=(settings, output)) as executor:
            report_progress(executor.map(_work, *zip(*jobs, strict=True)), len(done), log)
    results = {
        "settings": to_json(settings),
        "teacher": context.fingerprint,
        **check,
        "videos": [video.name for video in context.heldout.videos],
        "kinds": context.heldout.kinds,
        "arms": [context.outcome(START, 0), *(context.outcome(arm, seed) for seed in settings.seeds for arm in ARMS)],
    }
    write_json(output / "results.json", results)
    return results


def prepare(context: Context, log: Callable[[str], None]) -> dict[str, Any]:
    """Writes what all processes share, measures the teacher, and compares the measurement with files."""
    context.rows, context.heldout  # noqa: B018  (written to disk for the other processes)
    row = context.outcome(START, 0)
    log(line_of(row))
    cuts, found, others = found_cuts(context.heldout)
    file = context.output / "check.json"
    if not file.exists():
        condition = Condition("events", context.settings.retrieved[0])
        right = np.array([value == "1" for value in row["right"][condition.name]])
        same = agreement(context.settings.model, context.heldout, condition, right, videos=FILES_ASKED)
        write_json(file, {"cuts": cuts, "found": found, "other events": others, "agreement with files": same})
    check: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    log(f"segmenter and files: {check}")
    return check


def report_progress(finished: Iterable[list[str]], arms: int, log: Callable[[str], None]) -> None:
    """Logs every outcome with its number."""
    number = 0
    for lines in finished:
        for line in lines:
            number += 1
            log(f"[{number}/{arms}] {line}")


def check_same_experiment(settings: AblationSettings, output: Path) -> None:
    """Writes the settings, or compares them with those that the folder was made with."""
    keep_settings({**to_json(settings), "seeds": None}, output)
