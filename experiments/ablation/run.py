"""The ablation from start to end: data, arms, measurements, report. Every finished stage and arm is kept.

    marc world ablation --output runs/ablation --seeds 3

A killed run goes on where it was: what is finished (videos' memories, the training pool, stages, arms) is not done
again. Arms of one seed and layout share their first stage.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from experiments.ablation.heldout import (
    Exam,
    HeldOut,
    agreement,
    found_cuts,
    prepare_exam,
    prepare_heldout,
    sit,
)
from experiments.ablation.learner import StageLog, Weights, train_stage, trainable
from experiments.ablation.methods import build_method
from experiments.ablation.pool import TrainingPool, draw_pool_questions, load_pool, see_videos
from experiments.ablation.settings import ARMS, START, AblationSettings, Arm, Condition, Stage, to_json
from experiments.ablation.views import SeenVideo, Viewer
from experiments.tiny_model.answers import Sampler
from experiments.tiny_model.packing import Packer
from experiments.tiny_model.train import save_atomically
from marc.io import sha256_stream, write_json
from marc.model.loading import load_model
from marc.world.questions import WorldQuestion

FILES_ASKED = 4
"""Held-out files about which the assistant is asked too, as a check of the measurement."""
CURVE_SEED = 0


class Laboratory:
    """Everything that the arms of one process need, loaded once.

    Args:
        settings: The experiment.
        output: Its folder.
    """

    def __init__(self, settings: AblationSettings, output: Path) -> None:
        self.settings, self.output = settings, output
        self.model, self.processor = load_model(settings.model, device="cpu", dtype="float32")
        self.teacher, _ = load_model(settings.model, device="cpu", dtype="float32")
        self.teacher.requires_grad_(False)
        self.start = weights_of(self.model)
        self.packer, self.sampler = Packer(self.processor), Sampler(self.processor)

    @cached_property
    def pool(self) -> TrainingPool:
        """See `load_pool`."""
        settings = self.settings
        file = self.output / f"pool-{settings.train_seed}-{settings.train_videos}-{fingerprint(self.start)}.pt"
        return load_pool(
            self.teacher, self.packer, self.sampler, seed=settings.train_seed, count=settings.train_videos, file=file
        )

    @cached_property
    def heldout(self) -> HeldOut:
        """The held-out videos."""
        settings = self.settings
        return prepare_heldout(
            self.output / "heldout",
            seed=settings.test_seed,
            videos=settings.test_videos,
            questions=settings.test_questions,
            segmenter=settings.segmenter,
        )

    @cached_property
    def validation(self) -> tuple[dict[str, Exam], list[WorldQuestion]]:
        """Videos for the curves, at every budget that is measured there, and the questions about them."""
        count = self.settings.options.curve_videos
        seen = see_videos(Viewer(self.teacher), "validation", CURVE_SEED, count, ("full", "frames-1", "events"))
        rows = draw_pool_questions("validation", CURVE_SEED, count)
        each = len(rows[0])
        exams = {
            budget: Exam(videos, [(index, list(range(index * each, (index + 1) * each))) for index in range(count)])
            for budget, videos in seen.items()
        }
        return exams, [question for row in rows for question in row]

    @cached_property
    def exams(self) -> dict[str, Exam]:
        """The held-out videos under every condition, by its name; made once for all processes."""
        file = self.output / f"exams-{fingerprint(self.start)}.pt"
        if not file.exists():
            exams = {}
            for condition in tqdm(self.settings.conditions(START), desc="held-out videos", unit="condition"):
                exam = prepare_exam(Viewer(self.teacher), self.heldout, condition)
                exams[condition.name] = ([(video.features, video.positions) for video in exam.seen], exam.rows)
            save_atomically(exams, file)
        state = torch.load(file, weights_only=True)
        return {name: Exam([SeenVideo(*video) for video in seen], rows) for name, (seen, rows) in state.items()}

    def load(self, weights: Weights) -> None:
        """Gives the student its weights."""
        trainable(self.model).load_state_dict(weights)

    def trained(self, arm: Arm, stages: Sequence[Stage], seed: int) -> tuple[Weights, list[StageLog]]:
        """An arm's weights after some of its stages, trained now or found on disk, and what each stage did."""
        if not stages:
            return self.start, []
        name = "_".join([arm.group, *(stage.name for stage in stages), f"seed{seed}"])
        file = self.output / "stages" / f"{name}.pt"
        weights, logs = self.trained(arm, stages[:-1], seed)
        if not file.exists():
            self.load(weights)
            log = self.train(arm, stages, seed)
            file.parent.mkdir(parents=True, exist_ok=True)
            save_atomically({"weights": weights_of(self.model), "log": asdict(log)}, file)
        state = torch.load(file, weights_only=True)
        return state["weights"], [*logs, StageLog(**state["log"])]

    def train(self, arm: Arm, stages: Sequence[Stage], seed: int) -> StageLog:
        """Trains the student in its last stage."""
        stage, options = stages[-1], self.settings.options
        method = build_method(
            stage.method, options=options, sampler=self.sampler, teacher=self.teacher, pool=self.pool
        )
        budgets = [name for name in ("full", "frames-1", "events") if name in arm.budgets or name == "full"]

        def measure() -> dict[str, float]:
            exams, asked = self.validation
            return {
                name: float(sit(self.model, self.packer, self.sampler, exams[name], asked).mean()) for name in budgets
            }

        return train_stage(
            self.model,
            method,
            self.pool,
            arm.budgets,
            options,
            peak=options.learning_rates[stage.method],
            seconds=self.settings.seconds * stage.share,
            seed=seed * 1000 + len(stages),
            measure=measure,
        )

    def outcome(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Trains an arm and measures it under all its conditions; kept as JSON."""
        file = arm_file(self.output, arm, seed)
        if not file.exists():
            weights, logs = self.trained(arm, arm.stages, seed)
            self.load(weights)
            right = {
                condition.name: sit(
                    self.model, self.packer, self.sampler, self.exams[condition.name], self.heldout.asked
                )
                for condition in self.settings.conditions(arm)
            }
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(
                file,
                {
                    "arm": arm.key,
                    "seed": seed,
                    "accuracy": {name: float(values.mean()) for name, values in right.items()},
                    "stages": [asdict(log) for log in logs],
                    "right": {name: "".join(str(int(value)) for value in values) for name, values in right.items()},
                },
            )
        row: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return row


def weights_of(model: Any) -> Weights:
    """A copy of what is trained."""
    return {name: value.detach().clone() for name, value in trainable(model).state_dict().items()}


def fingerprint(weights: Weights) -> str:
    """Changes with every weight."""
    return sha256_stream(name.encode() + value.numpy().tobytes() for name, value in weights.items())[:12]


def arm_file(output: Path, arm: Arm, seed: int) -> Path:
    """Where an arm's outcome is kept."""
    return output / "arms" / f"{arm.key.replace('/', '_').replace('>', '')}_seed{seed}.json"


_OPEN: list[Laboratory] = []


def _open(settings: AblationSettings, output: Path) -> None:
    """Opens the laboratory of this process, which computes on one core so that its time can be compared."""
    torch.set_num_threads(1)
    _OPEN.append(Laboratory(settings, output))


def _work(seed: int, group: str) -> list[str]:
    """Trains and measures the arms of one seed and group; a line for each."""
    (lab,) = _OPEN
    return [line_of(lab.outcome(arm, seed)) for arm in ARMS if arm.group == group]


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
    jobs = [(seed, group) for seed in settings.seeds for group in dict.fromkeys(arm.group for arm in ARMS)]
    done = [arm_file(output, arm, seed).exists() for arm in ARMS for seed in settings.seeds]
    log(f"{len(done)} arms of {settings.seconds:g} processor seconds each, {sum(done)} finished already")
    _open(settings, output)
    lab = _OPEN.pop()
    check = prepare(lab, log)
    if workers == 1:
        _OPEN.append(lab)
        finished = (_work(*job) for job in jobs)
        report_progress(finished, len(done), log)
        _OPEN.pop()
    else:
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=_open, initargs=(settings, output)) as executor:
            report_progress(executor.map(_work, *zip(*jobs, strict=True)), len(done), log)
    results = {
        "settings": to_json(settings),
        "teacher": fingerprint(lab.start),
        **check,
        "videos": [video.name for video in lab.heldout.videos],
        "kinds": [question.kind for question in lab.heldout.asked],
        "arms": [lab.outcome(START, 0), *(lab.outcome(arm, seed) for seed in settings.seeds for arm in ARMS)],
    }
    write_json(output / "results.json", results)
    return results


def prepare(lab: Laboratory, log: Callable[[str], None]) -> dict[str, Any]:
    """Makes what all processes share, measures the teacher, and compares the measurement with files."""
    lab.pool  # noqa: B018  (written to disk for the other processes)
    lab.exams  # noqa: B018  (likewise)
    row = lab.outcome(START, 0)
    log(line_of(row))
    cuts, found, wrong = found_cuts(lab.heldout)
    file = lab.output / "check.json"
    if not file.exists():
        condition = Condition("events", lab.settings.retrieved[0])
        right = np.array([value == "1" for value in row["right"][condition.name]])
        settings = lab.settings
        same = agreement(
            settings.model, lab.heldout, condition, right, segmenter=settings.segmenter, videos=FILES_ASKED
        )
        write_json(file, {"cuts": cuts, "found": found, "other events": wrong, "agreement with files": same})
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
    file = output / "settings.json"
    values = json.loads(json.dumps({**to_json(settings), "seeds": None}))
    if not file.exists():
        write_json(file, values)
    before = json.loads(file.read_text(encoding="utf-8"))
    if before != values:
        changed = [name for name in values if before.get(name) != values[name]]
        raise ValueError(f"{output} holds an experiment with other {', '.join(changed)}; choose another --output")
