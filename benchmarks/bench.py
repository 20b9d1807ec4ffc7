"""The bench: stock transformers, the published setting and ours in one run, in turn, on the same video and question.

    marc bench                                # two minutes on a CPU, with a scaled-down model
    marc bench --model 3b --device cuda       # the real sizes on one GPU

Weights are random: what is measured does not depend on their values, but for the events that a random dual encoder
retrieves. Every repeat asks each setting a first question about the video and then a second one; the order of the
settings changes from repeat to repeat.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from benchmarks.accuracy import Accuracy
from benchmarks.architectures import Architecture, Weights, build_config, find_architecture
from benchmarks.clip import ClipOptions, write_clip
from benchmarks.counters import (
    Ceilings,
    Work,
    WorkCounter,
    count_language,
    countable_attention,
    measure_ceilings,
    on_meta,
)
from benchmarks.peak_memory import LOOKS, Growth, measure_growth, memory_in_use, peak_bytes_above
from benchmarks.subjects import INSIDE, Setting, Subject, Task, chat, settings, subject
from marc.evaluation.run_card import environment
from marc.inference.assistant import FrameOptions
from marc.inference.stages import StageClock, stages_timed_by
from marc.memory.embedder import EventEmbedder
from marc.memory.index import remember
from marc.model.tiny import build_tokenizer
from marc.types import Answer

QUESTIONS = (
    "What moves through the picture in the second scene, and where does it stand when the scene ends?",
    "Which of the scenes is the brightest one, and what could be seen just before it began?",
)
FEWEST_REPEATS = 3
FEWEST_FRAMES = 6
"""A temporal grid for each of the three events that are retrieved."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class BenchOptions:
    """How the bench is run.

    Attributes:
        model: See `benchmarks.architectures.find_architecture`.
        device: Where the model runs.
        repeats: Measured rounds, after one that is not.
        seconds: Time after which no further round begins, once there are three.
        new_tokens: Tokens of every answer.
        frames: Frames that stock transformers reads.
        attn_implementation: As in transformers.
        dtype_name: Of the weights, ``float32`` or ``bfloat16``; by default bfloat16 on a GPU and float32 on a CPU.
        video: A file instead of the generated one.
        processor_time: Time the stages by the processor instead of the wall's clock: for a CPU that is busy otherwise.
        endurance: So many questions are asked in a row in the setting ``"inside"``, to see whether memory grows.
    """

    model: str = "scaled"
    device: str = "cpu"
    repeats: int = 7
    seconds: float = 30.0
    new_tokens: int = 16
    frames: int = 64
    attn_implementation: str | None = None
    dtype_name: str | None = None
    video: str | None = None
    processor_time: bool = False
    endurance: int = 0

    def __post_init__(self) -> None:
        find_architecture(self.model)
        if self.repeats < FEWEST_REPEATS:
            raise ValueError(f"--repeats must be at least {FEWEST_REPEATS}, got {self.repeats}")
        if self.dtype_name not in (None, "float32", "bfloat16"):
            raise ValueError(f"--dtype must be float32 or bfloat16, got {self.dtype_name!r}")
        if self.processor_time and torch.device(self.device).type != "cpu":
            raise ValueError("--processor-time is for --device cpu: a GPU's work takes no processor time")
        if 0 < self.endurance < LOOKS:
            raise ValueError(f"--endurance must be 0 or at least {LOOKS}, got {self.endurance}")
        if self.new_tokens < 2 or self.frames < FEWEST_FRAMES:
            raise ValueError(f"--new-tokens must be at least 2 and --frames at least {FEWEST_FRAMES}")
        if torch.device(self.device).type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"--device {self.device}: PyTorch sees no GPU here; --device cpu runs without one")

    @property
    def architecture(self) -> Architecture:
        """Sizes of the model."""
        return find_architecture(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        default = "bfloat16" if torch.device(self.device).type == "cuda" else "float32"
        dtype: torch.dtype = getattr(torch, self.dtype_name or default)
        return dtype


@dataclass(frozen=True)
class Remembering:
    """Seconds to build the memory of the video, which happens once per video.

    Attributes:
        segmentation: Decoding it and cutting it into events, one value per repeat.
        embedding: The image tower, on the pictures taken on the way, likewise.
        events: Number of events.
    """

    segmentation: tuple[float, ...]
    embedding: tuple[float, ...]
    events: int


@dataclass(frozen=True)
class Counts:
    """What a setting has to compute.

    Attributes:
        vision: The tower.
        prefill: The language model on the prompt.
        token: One decoding step after it.
    """

    vision: Work
    prefill: Work
    token: Work


@dataclass
class Column:
    """The measurements of one setting.

    Attributes:
        setting: What was measured.
        counts: What it has to compute.
        peak_bytes_above: Peak memory above the weights, for a first question; with what the subject holds on a GPU.
        first: Answers to the first question, one per repeat.
        second: Answers to the second question in the same repeats.
    """

    setting: Setting
    counts: Counts
    peak_bytes_above: int | None
    first: list[Answer] = field(default_factory=list)
    second: list[Answer] = field(default_factory=list)


@dataclass(frozen=True)
class BenchResult:
    """Everything that was measured.

    Attributes:
        options: How.
        environment: Machine, versions, commit.
        ceilings: What the device reaches at best.
        weights_bytes: Memory of the model's weights.
        embedder_bytes: Memory of the dual encoder's weights.
        remembering: Once per video.
        columns: By setting.
        growth: Of memory over many questions; None if not measured.
        wall_seconds: Duration of the bench.
        started: Date and time, in UTC.
        command: What was typed.
        threads: Of torch, on the CPU.
        load: `load_average` before and after.
        accuracies: By setting, see `benchmarks.accuracy`; empty if not measured.
    """

    options: BenchOptions
    environment: dict[str, Any]
    ceilings: Ceilings
    weights_bytes: int
    embedder_bytes: int
    remembering: Remembering
    columns: tuple[Column, ...]
    growth: Growth | None
    wall_seconds: float
    started: str
    command: str
    threads: int
    load: tuple[float, float] | None
    accuracies: tuple[Accuracy, ...] = ()


def run_bench(options: BenchOptions, report: Report = lambda _: None) -> BenchResult:
    """Measures all settings.

    Args:
        options: How.
        report: Called with a line about what comes next.
    """
    begin, started, load = time.perf_counter(), datetime.now(timezone.utc), load_average()
    architecture, device = options.architecture, torch.device(options.device)
    with tempfile.TemporaryDirectory(prefix="marc-bench-") as folder:
        report("ceilings of the device")
        ceilings = measure_ceilings(
            device, options.dtype, clock=time.process_time if options.processor_time else time.perf_counter
        )
        report("weights and video")
        weights = Weights.random(
            architecture,
            device=device,
            dtype=options.dtype,
            attn_implementation=options.attn_implementation,
            corpus=QUESTIONS,
        )
        video = Path(options.video) if options.video else _generated_video(Path(folder), architecture)
        embedder = build_embedder(architecture.embedder, device)
        report("memory of the video")
        remembering = remember_timed(video, embedder, Path(folder))
        task = Task(
            video=video,
            weights=weights,
            embedder=embedder,
            memory_folder=Path(folder),
            frames=FrameOptions(
                fps=1.0,
                max_frames=options.frames,
                min_pixels=architecture.frame_pixels,
                max_pixels=architecture.frame_pixels,
            ),
            new_tokens=options.new_tokens,
        )
        columns, subjects = [], {}
        for setting in settings(architecture.depth):
            report(f"warm-up, counts and memory: {setting.name}")
            before = memory_in_use(device)
            subjects[setting.name] = subject(setting, task)
            columns.append(prepare_column(setting, subjects[setting.name], task, before))
        with stages_timed_by(ProcessorTime() if options.processor_time else time.perf_counter):
            measure_in_turn(columns, list(subjects.values()), options, report)
        growth = measure_growth(subjects[INSIDE], options.endurance, device, report) if options.endurance else None
    return BenchResult(
        options=options,
        environment=environment(),
        ceilings=ceilings,
        weights_bytes=weights.bytes,
        embedder_bytes=sum(parameter.nbytes for parameter in embedder.model.parameters()),
        remembering=remembering,
        columns=tuple(columns),
        growth=growth,
        wall_seconds=time.perf_counter() - begin,
        started=started.isoformat(timespec="seconds"),
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        threads=torch.get_num_threads(),
        load=None if load is None else (load, load_average() or 0.0),
    )


def measure_in_turn(
    columns: list[Column], subjects: list[Subject], options: BenchOptions, report: Report = lambda _: None
) -> None:
    """Asks all subjects both questions, round after round, each round beginning with another one."""
    begin = time.perf_counter()
    for repeat in range(options.repeats):
        if repeat >= FEWEST_REPEATS and time.perf_counter() - begin > options.seconds:
            break
        report(f"round {repeat + 1} of {options.repeats}")
        for place in range(len(subjects)):
            index = (place + repeat) % len(subjects)
            subjects[index].restart()
            columns[index].first.append(subjects[index].ask(QUESTIONS[0]))
            columns[index].second.append(subjects[index].ask(QUESTIONS[1]))
            subjects[index].restart()


class ProcessorTime:
    """Processor seconds of this process and of those that it had started when this was made, the decoder's among them.

    A machine that is busy with something else makes these no longer, as it does the time on the wall; several threads
    at work add up.
    """

    def __init__(self) -> None:
        self._children = dict.fromkeys(psutil.Process().children(recursive=True), 0.0)

    def __call__(self) -> float:
        """Seconds so far."""
        for child in self._children:
            with suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                self._children[child] = times.user + times.system
        return time.process_time() + sum(self._children.values())


def prepare_column(setting: Setting, compared: Subject, task: Task, before: int) -> Column:
    """Warms a subject up, counts its work and measures its peak memory.

    Args:
        setting: What the subject is set to.
        compared: The subject.
        task: What it is asked.
        before: `memory_in_use` before it was built. On a GPU what it holds since then counts as part of its peak; on a
            CPU that cannot be told from what the C library keeps.
    """
    for question in reversed(QUESTIONS):
        warm = compared.ask(question)
    compared.restart()
    counts = count(compared, warm.visual_tokens_after, task)
    compared.restart()
    held = memory_in_use(task.device) - before if task.device.type == "cuda" else 0
    peak = peak_bytes_above(lambda: compared.ask(QUESTIONS[0]), task.device)
    compared.restart()
    return Column(setting, counts, None if peak is None else peak + held)


def count(compared: Subject, visual_tokens: int, task: Task) -> Counts:
    """Counts what a subject has to compute for the first question: the tower as it runs, the rest on shapes alone."""
    tower = compared.model.model.visual
    with countable_attention(tower), WorkCounter().only_in(tower) as counter:
        compared.see(QUESTIONS[0])
    weights = task.weights
    text_tokens = len(weights.tokenizer(chat(weights.processor(), QUESTIONS[0])).input_ids) - 1
    prefill, token = count_language_of(weights.architecture, weights.holder.dtype, visual_tokens + text_tokens)
    return Counts(counter.work, prefill, token)


@cache
def count_language_of(architecture: Architecture, dtype: torch.dtype, prompt_tokens: int) -> tuple[Work, Work]:
    """`count_language` for an architecture, once for all settings whose prompts are equally long."""
    language = on_meta(Qwen2_5_VLForConditionalGeneration, build_config(architecture, build_tokenizer()), dtype)
    return count_language(language, prompt_tokens)


def remember_timed(video: Path, embedder: EventEmbedder, folder: Path) -> Remembering:
    """Builds the memory of the video, which stays in the folder, then a few more in other folders, and times these."""
    events = remember(video, embedder, folder=folder).events
    whole, embedding = [], []
    for repeat in range(FEWEST_REPEATS):
        clock = StageClock(embedder.device)
        with clock.stage("all"), clock.module("embedding", embedder.model.get_submodule("visual")):
            remember(video, embedder, folder=folder / f"again-{repeat}")
        whole.append(clock.seconds["all"])
        embedding.append(clock.seconds["embedding"])
    cutting = tuple(seconds - embedded for seconds, embedded in zip(whole, embedding, strict=True))
    return Remembering(cutting, tuple(embedding), len(events))


def build_embedder(name: str, device: torch.device) -> EventEmbedder:
    """The dual encoder ``"tiny"``, or one of open_clip's with random weights, which take as long as trained ones."""
    if name == "tiny":
        return EventEmbedder.from_pretrained(name, device=device)
    return EventEmbedder.untrained(name, device=device)


def load_average() -> float | None:
    """Processes that wanted a processor in the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def _generated_video(folder: Path, architecture: Architecture) -> Path:
    """A file twice as wide and high as what the model reads of it."""
    path = folder / "clip.mp4"
    height, width = (56 * cells for cells in architecture.cells)
    write_clip(path, ClipOptions(width, height))
    return path
