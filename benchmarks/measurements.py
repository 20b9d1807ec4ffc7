"""What the bench measures: all settings in turn, round after round, with what they have to compute and hold."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.accuracy import Accuracy
from benchmarks.architectures import Architecture, Placement, Weights, build_config, find_architecture
from benchmarks.bench import FEWEST_ROUNDS, BenchOptions
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
from benchmarks.peak_memory import Growth, measure_growth, memory_in_use, peak_bytes_above
from benchmarks.systems import INSIDE, Setting, System, Workload, build_system, chat, settings
from marc.evaluation.run_card import environment
from marc.inference.stages import StageClock, stages_timed_by
from marc.memory.embedder import EventEmbedder
from marc.memory.index import remember
from marc.options import OptionError
from marc.types import VISION_MARKS, Answer
from marc.video.options import FrameOptions

QUESTIONS = (
    "What moves through the picture in the second scene, and where does it stand when the scene ends?",
    "Which of the scenes is the brightest one, and what could be seen just before it began?",
)

Report = Callable[[str], None]


@dataclass(frozen=True)
class MemoryTimes:
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
class Measurement:
    """What was measured of one setting.

    Attributes:
        setting: Which.
        counts: What it has to compute.
        peak_bytes_above: Peak memory above the weights, for a first question; with what the system holds on a GPU.
        first: Answers to the first question, one per round.
        second: Answers to the second question in the same rounds.
    """

    setting: Setting
    counts: Counts
    peak_bytes_above: int | None
    first: list[Answer] = field(default_factory=list)
    second: list[Answer] = field(default_factory=list)


@dataclass(frozen=True)
class Circumstances:
    """Where and when a bench ran.

    Attributes:
        environment: Machine, versions, commit.
        command: What was typed.
        started: Date and time, in UTC.
        wall_seconds: Duration of the bench.
        threads: Of torch, on the CPU.
        load: `load_average` before and after.
    """

    environment: dict[str, Any]
    command: str
    started: str
    wall_seconds: float
    threads: int
    load: tuple[float, float] | None


@dataclass(frozen=True)
class BenchResult:
    """Everything that was measured.

    Attributes:
        options: How.
        placement: Of the weights.
        circumstances: Where and when.
        ceilings: What the device reaches at best.
        weights_bytes: Memory of the model's weights.
        embedder_bytes: Memory of the dual encoder's weights.
        remembering: Once per video.
        measurements: By setting.
        growth: Of memory over many questions; None if not measured.
        accuracies: By setting, see `benchmarks.accuracy`; empty if not measured.
    """

    options: BenchOptions
    placement: Placement
    circumstances: Circumstances
    ceilings: Ceilings
    weights_bytes: int
    embedder_bytes: int
    remembering: MemoryTimes
    measurements: tuple[Measurement, ...]
    growth: Growth | None
    accuracies: tuple[Accuracy, ...] = ()


def measure(
    options: BenchOptions, own: Mapping[str, Any] | None = None, *, report: Report = lambda _: None
) -> BenchResult:
    """Measures all settings.

    Args:
        options: How.
        own: Of one more setting, see `benchmarks.systems.settings`.
        report: Called with a line about what comes next.

    Raises:
        ValueError: If there is no such model or device, or `own` is wrong.
    """
    begin, started, load = time.perf_counter(), datetime.now(timezone.utc), load_average()
    architecture, placement = find_architecture(options.model), place(options)
    compared, device = settings(architecture.depth, own), placement.device
    with tempfile.TemporaryDirectory(prefix="marc-bench-") as folder:
        report("ceilings of the device")
        clock = time.process_time if options.processor_time else time.perf_counter
        ceilings = measure_ceilings(device, placement.dtype, clock=clock)
        report("weights, video and its memory")
        workload = prepare(options, architecture, placement, Path(folder))
        remembering = remember_timed(workload)
        measurements, systems = [], {}
        for setting in compared:
            report(f"warm-up, counts and memory: {setting.name}")
            before = memory_in_use(device)
            systems[setting.name] = build_system(setting, workload)
            measurements.append(warm_up(setting, systems[setting.name], workload, before))
        with stages_timed_by(ProcessorTime() if options.processor_time else time.perf_counter):
            measure_in_turn(measurements, list(systems.values()), options, report)
        growth = measure_growth(systems[INSIDE], options.endurance, device, report) if options.endurance else None
    return BenchResult(
        options=options,
        placement=placement,
        circumstances=Circumstances(
            environment=environment(),
            command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            started=started.isoformat(timespec="seconds"),
            wall_seconds=time.perf_counter() - begin,
            threads=torch.get_num_threads(),
            load=None if load is None else (load, load_average() or 0.0),
        ),
        ceilings=ceilings,
        weights_bytes=workload.weights.bytes,
        embedder_bytes=sum(parameter.nbytes for parameter in workload.embedder.model.parameters()),
        remembering=remembering,
        measurements=tuple(measurements),
        growth=growth,
    )


def place(options: BenchOptions) -> Placement:
    """Where the weights go, and of what type.

    Raises:
        OptionError: If the device is not there.
    """
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise OptionError("device", f"{device}: PyTorch sees no GPU here; cpu runs without one", "--")
    dtype = getattr(torch, options.dtype or ("bfloat16" if device.type == "cuda" else "float32"))
    return Placement(device, dtype, options.attn_implementation)


def prepare(options: BenchOptions, architecture: Architecture, placement: Placement, folder: Path) -> Workload:
    """Weights, video and dual encoder.

    Args:
        options: How.
        architecture: Of the model.
        placement: Of its weights.
        folder: For the video, if it is generated, and its memory.
    """
    pixels = architecture.frame_pixels
    return Workload(
        video=Path(options.video) if options.video else _generated_video(folder, architecture),
        weights=Weights.random(architecture, placement, corpus=QUESTIONS),
        embedder=build_embedder(architecture.embedder, placement.device),
        memory_folder=folder,
        frames=FrameOptions(fps=1.0, max_frames=options.frames, min_pixels=pixels, max_pixels=pixels),
        new_tokens=options.new_tokens,
    )


def measure_in_turn(
    measurements: list[Measurement], systems: list[System], options: BenchOptions, report: Report = lambda _: None
) -> None:
    """Asks all systems both questions, round after round, each round beginning with another one."""
    begin = time.perf_counter()
    for number in range(options.repeats):
        if number >= FEWEST_ROUNDS and time.perf_counter() - begin > options.seconds:
            break
        report(f"round {number + 1} of {options.repeats}")
        for place_in_turn in range(len(systems)):
            index = (place_in_turn + number) % len(systems)
            system, measured = systems[index], measurements[index]
            system.forget()
            measured.first.append(system.ask(QUESTIONS[0]))
            measured.second.append(system.ask(QUESTIONS[1]))
            system.forget()


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


def warm_up(setting: Setting, system: System, workload: Workload, before: int) -> Measurement:
    """Warms a system up, counts its work and measures its peak memory.

    Args:
        setting: What the system is set to.
        system: The system.
        workload: What it is asked.
        before: `memory_in_use` before it was built. On a GPU what it holds since then counts as part of its peak; on a
            CPU that cannot be told from what the C library keeps.
    """
    for question in reversed(QUESTIONS):
        answer = system.ask(question)
    system.forget()
    counts = count(system, answer.prompt_tokens_after, workload)
    system.forget()
    held = memory_in_use(workload.device) - before if workload.device.type == "cuda" else 0
    peak = peak_bytes_above(lambda: system.ask(QUESTIONS[0]), workload.device)
    system.forget()
    return Measurement(setting, counts, None if peak is None else peak + held)


def count(system: System, video_tokens: int, workload: Workload) -> Counts:
    """Counts what a system has to compute for the first question: the tower as it runs, the rest on shapes alone.

    Args:
        system: The system.
        video_tokens: What the video costs in the prompt, the marks around it included.
        workload: What it is asked.
    """
    tower = system.model.model.visual
    with countable_attention(tower), WorkCounter().only_in(tower) as counter:
        system.encode(QUESTIONS[0])
    weights = workload.weights
    chat_tokens = len(weights.tokenizer(chat(weights.processor(), QUESTIONS[0])).input_ids)
    prompt = chat_tokens - 1 - VISION_MARKS + video_tokens
    prefill, token = count_language_of(weights.architecture, weights.placement.dtype, prompt)
    return Counts(counter.work, prefill, token)


@cache
def count_language_of(architecture: Architecture, dtype: torch.dtype, prompt_tokens: int) -> tuple[Work, Work]:
    """`count_language` for an architecture, once for all settings whose prompts are equally long."""
    language = on_meta(architecture.stock_model, build_config(architecture, architecture.build_tokenizer()), dtype)
    return count_language(language, prompt_tokens)


def remember_timed(workload: Workload) -> MemoryTimes:
    """Builds the memory of the video, which stays in the folder, then a few more in other folders, and times these."""
    video, embedder, folder = workload.video, workload.embedder, workload.memory_folder
    events = remember(video, embedder, folder=folder).events
    whole, embedding = [], []
    for number in range(FEWEST_ROUNDS):
        clock = StageClock(embedder.device)
        with clock.stage("all"), clock.module("embedding", embedder.model.get_submodule("visual")):
            remember(video, embedder, folder=folder / f"again-{number}")
        whole.append(clock.seconds["all"])
        embedding.append(clock.seconds["embedding"])
    cutting = tuple(seconds - embedded for seconds, embedded in zip(whole, embedding, strict=True))
    return MemoryTimes(cutting, tuple(embedding), len(events))


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
    height, width = (2 * architecture.factor * cells for cells in architecture.cells)
    write_clip(path, ClipOptions(width, height))
    return path
