"""``marc eval`` and ``marc report``: benchmarks, and what their runs say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marc.cli.options import Given, Part, command
from marc.cli.output import echo, make_console
from marc.cli.verbosity import is_quiet
from marc.cluster import ClusterOptions
from marc.compression.config import CompressionConfig
from marc.evaluation.options import EngineOptions, TaskOptions
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.terminal import in_one_line
from marc.types import GenerationOptions, ModelOptions
from marc.video.options import FrameOptions, SubtitleOptions

if TYPE_CHECKING:
    from rich.console import Console

    from marc.evaluation.engine import Engine, EnginePool
    from marc.evaluation.evaluate import Task
    from marc.evaluation.methods import Method
    from marc.evaluation.samples import Sample
    from marc.evaluation.summary import RunSummary

ON_CLUSTER = ("workers", "cpus_per_worker", "gpus_per_worker")
PAPER_SAMPLING = {"temperature": 0.01, "top_p": 0.001}

Changes = Annotated[dict[str, Any], Part(record=CompressionConfig, otherwise="the method's, else the model's")]
Sampling = Annotated[
    dict[str, Any],
    Part(
        record=GenerationOptions,
        otherwise="the protocol's",
        defaults={
            "temperature": 0.0,
            "top_p": 1.0,
            "seed": 0,
            "static": False,
            "think_below": None,
            "repetition_penalty": 1.0,
        },
    ),
]


@command(
    "eval",
    old={"--frames": "--max-frames", "--timeout": "--video-timeout", "--attention": "--attn-implementation"},
)
def evaluate(
    *,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(help="Name, or a .json file in Video-R1-eval's format; repeatable.", show_default="world"),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="How tokens are spent, see --list, or a budget; NAME+memory retrieves; repeatable.",
            show_default="marc-events",
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(help="The same as --method BUDGET: auto:N, full, events:N, frames:N, tokens:N or prompt:N."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Runs go to OUTPUT/<benchmark>/<method>.", show_default="runs/eval/<model>")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Questions per generation.", min=1)] = 16,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask again what failed earlier.")] = False,
    paper_sampling: Annotated[
        bool, typer.Option("--paper-sampling", help="The paper's temperature 0.01 and top_p 0.001.")
    ] = False,
    list_all: Annotated[bool, typer.Option("--list", help="Show benchmarks and methods, then stop.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Read every file as a run would, then stop.")] = False,
    task: TaskOptions,
    model: ModelOptions,
    compression: Changes,
    frames: FrameOptions,
    memory: MemoryOptions,
    retrieval: RetrievalOptions,
    subtitles: Annotated[SubtitleOptions, Part(defaults={"choice": "none"})],
    generation: Sampling,
    cluster: Annotated[ClusterOptions, Part(("ray", "cpus_per_worker", "gpus_per_worker"))],
    workers: Annotated[int, typer.Option(help="Engines at a time on the cluster of --ray.", min=1)] = 1,
    given: Given,
) -> None:
    """Answer questions of benchmarks, score them, and report; a stopped run goes on. Exit code 1 if samples failed."""
    from marc.evaluation.evaluate import load_tasks
    from marc.evaluation.runner import processes

    if list_all:
        _list()
        return
    given.refuse_beside("processes of this machine", cluster.ray is None, *ON_CLUSTER)
    console = make_console(stderr=True)
    methods = _methods([*(method or []), *(budget or [])], given, compression.get("layout"))
    sampling = _sampling(generation, given, paper_sampling, model.attn_implementation)
    options = EngineOptions(model, frames, memory, retrieval, compression, subtitles)
    with processes() as wait:
        tasks = load_tasks(benchmark or ["world"], task, wait)
        if check:
            raise typer.Exit(0 if _check(console, tasks, frames, wait) else 1)
        folder = output or Path("runs/eval") / Path(model.name).name
        runs = Runs(folder, batch_size, retry_failed, console, wait, cluster, workers)
        finished = [run for each in methods for run in runs.run(each, tasks, options, sampling)]
    _end_with_failures([run for run in finished if run.failed])


def _methods(names: Sequence[str], given: Given, layout: str | None) -> list[Method]:
    """The methods of these names beside a layout, once it is certain that every given option has something to do."""
    from marc.evaluation.methods import find_method

    methods = [find_method(name) for name in names or ["marc-events"]]
    given.refuse_beside(
        "a --method without +memory", not any(one.memory for one in methods), RetrievalOptions, MemoryOptions
    )
    for one in methods:
        given.refuse_beside(f"--method {one.name}", True, *one.fixed(layout))
    return methods


def _sampling(generation: dict[str, Any], given: Given, paper_sampling: bool, attention: str | None) -> dict[str, Any]:
    """Fields of `GenerationOptions` beside the protocol's."""
    given.refuse_beside("--paper-sampling", paper_sampling, *PAPER_SAMPLING)
    sampling = {**generation, **(PAPER_SAMPLING if paper_sampling else {})}
    given.refuse_beside("greedy decoding (--temperature 0)", not sampling.get("temperature"), "top_p", "seed")
    if sampling.get("static") and "flash" in (attention or ""):
        raise ValueError(f"--static-cache is for one compiled graph, which --attn-implementation {attention} breaks")
    return sampling


def _end_with_failures(failing: Sequence[RunSummary]) -> None:
    """Says how many samples of runs failed, with the first reason, and ends with exit code 1 if there are any."""
    if not failing:
        return
    count = sum(run.failed for run in failing)
    reason = failing[0].failures[0][0]
    reports = ", ".join(f"{run.folder}/report.md" for run in failing[:3]) + (" and others" if failing[3:] else "")
    said = f"{count} samples failed; first reason: {reason}; see {reports}; --retry-failed asks them again"
    echo(in_one_line(f"marc eval: {said}"), err=True)
    raise typer.Exit(1)


def _check_thinking(tasks: Sequence[Task], sampling: dict[str, Any]) -> None:
    """Refuses to answer first where prompts ask for the bare answer anyway, before a model is loaded."""
    from marc.data.prompts import check_asks_to_think

    if sampling.get("think_below") is None:
        return
    for task in tasks:
        try:
            for sample in task.samples:
                check_asks_to_think(sample.prompt)
        except ValueError as error:
            raise ValueError(f"{task.benchmark.title}, {task.protocol} protocol: {error}") from error


@dataclass(frozen=True)
class Runs:
    """Where and how methods answer.

    Attributes:
        folder: Holds a folder per benchmark, and in it one per method.
        batch_size: Samples at once.
        retry_failed: Whether samples are asked again that failed earlier.
        console: Where progress and results are shown.
        wait: Returns once all processes have called it.
        cluster: Where engines answer.
        workers: How many of them at a time on a cluster.
    """

    folder: Path
    batch_size: int
    retry_failed: bool
    console: Console
    wait: Callable[[], None]
    cluster: ClusterOptions
    workers: int

    def run(
        self, method: Method, tasks: Sequence[Task], options: EngineOptions, sampling: dict[str, Any]
    ) -> list[RunSummary]:
        """Has one method answer all tasks; gives what came of each in the main process, nothing in the others."""
        from marc.evaluation.evaluate import load_engine

        _check_thinking(tasks, sampling)
        load = partial(load_engine, method, options)
        if self.cluster.ray is None:
            return self._run(method, tasks, load(), sampling)
        from marc.evaluation.cluster import engines_on_ray

        with engines_on_ray(load, self.cluster, self.workers) as engines:
            return self._run(method, tasks, engines, sampling)

    def _run(
        self, method: Method, tasks: Sequence[Task], engine: Engine | EnginePool, sampling: dict[str, Any]
    ) -> list[RunSummary]:
        from marc.evaluation.evaluate import run_task
        from marc.evaluation.runner import RunOptions

        summaries = []
        for task in tasks:
            own = {"max_new_tokens": task.spec.max_new_tokens, "repetition_penalty": 1.0}
            generation = GenerationOptions(**{**own, **sampling})
            asked = RunOptions(task.protocol, generation, self.batch_size, self.retry_failed)
            folder = self.folder / task.benchmark.name / method.name
            summary = run_task(task, engine, folder, asked, self.console, self.wait)
            summaries += [summary] if summary else []
        return summaries


@command("report")
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or folders that hold some.", metavar="RUN...")],
    published: Annotated[bool, typer.Option("--published", help="Show the paper's lines, too.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write the tables to this Markdown file.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the tables to this JSON file.")] = None,
    details: Annotated[bool, typer.Option("--details", help="Also each run's breakdown and costs.")] = False,
) -> None:
    """Put runs side by side, and compare each with the first of its benchmark, sample by sample."""
    from marc.evaluation.report import comparisons, side_by_side, tables
    from marc.evaluation.runner import CARD
    from marc.evaluation.summary import summarise
    from marc.io import write_json, write_text

    folders = [folder for run in runs for folder in ([run] if (run / CARD).is_file() else _runs_below(run))]
    summaries = [summarise(folder) for folder in folders]
    shown = [side_by_side(summaries, published=published), comparisons(folders)]
    for summary in summaries if details else []:
        shown += tables(summary)
    shown = [table for table in shown if table.rows]
    console = make_console()
    for table in shown:
        table.show(console)
    if markdown:
        write_text(markdown, "\n\n".join(table.markdown() for table in shown) + "\n")
    if json_file:
        content = [{"title": table.title, "columns": table.columns, "rows": table.rows} for table in shown]
        write_json(json_file, content)


def _runs_below(folder: Path) -> list[Path]:
    from marc.evaluation.runner import CARD

    found = sorted((card.parent for card in folder.glob(f"**/{CARD}")), key=_beginning)
    if not found:
        raise ValueError(f"{folder} holds no run: no {CARD} in it or below")
    return found


def _beginning(folder: Path) -> tuple[str, str]:
    """By which runs are ordered: when they began."""
    from marc.evaluation.runner import read_card

    return str(read_card(folder).get("started", "")), str(folder)


def _list() -> None:
    """What each protocol of each benchmark needs, where to get it, how it is averaged; and the methods."""
    from marc.evaluation.benchmarks import BENCHMARKS
    from marc.evaluation.methods import METHODS

    for entry in BENCHMARKS.values():
        for protocol, spec in entry.protocols.items():
            echo(f"{entry.name} ({entry.title}), {protocol} protocol, {spec.headline}")
            echo(f"    needs  {', '.join(spec.files)} as .jsonl, .json or .parquet, and the videos")
            echo(f"    from   {spec.source}")
            if spec.note:
                echo(f"    note   {spec.note}")
    echo("\nmethods, each also as NAME+memory; or any budget, such as events:4, frames:2 or tokens:128:")
    for method in METHODS.values():
        echo(f"    {method.name:12} {method.summary}")


def _check(console: Console, tasks: Sequence[Task], frames: FrameOptions, wait: Callable[[], None]) -> bool:
    """Whether all files can be read; the main process looks."""
    from marc.evaluation.runner import Shard

    is_main = Shard.from_environment().rank == 0
    usable = []
    for task in tasks if is_main else ():
        if needed := next(iter(task.spec.revisions), None):
            found = task.spec.revision_of(task.videos) or "none that is known"
            echo(f"{task.benchmark.title}: the videos are of the revision {found}; needed is {needed}")
        usable.append(_check_files(console, task.samples, frames))
    wait()
    return all(usable)


def _check_files(console: Console, samples: Sequence[Sample], frames: FrameOptions) -> bool:
    from rich.progress import track

    from marc.data.check import CheckOptions, check_files

    files = len({sample.path for sample in samples})
    bad = 0
    checked = check_files(samples, options=CheckOptions(frames.max_frames, frames.timeout))
    for file in track(checked, "checking", total=files, console=console, disable=is_quiet()):
        if file.problem:
            bad += 1
            echo(f"{file.path}: {file.problem} (needed by {len(file.users)} samples, first {file.users[0]})")
    echo(f"{len(samples)} samples, {files} files, {bad} of them unusable")
    return not bad
