"""From names to reports: load benchmarks and engines, run what is left, wait for the other processes, report."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from marc.evaluation.benchmarks import WORLD, Benchmark, ProtocolSpec, find_benchmark
from marc.evaluation.engine import Engine, EnginePool
from marc.evaluation.methods import Method
from marc.evaluation.options import EngineOptions, TaskOptions
from marc.evaluation.progress import progress
from marc.evaluation.reading import load_samples
from marc.evaluation.report import tables, write_report
from marc.evaluation.run_card import run_card
from marc.evaluation.runner import RunOptions, Shard, open_run, read_run_rows, run
from marc.evaluation.samples import Sample
from marc.evaluation.summary import RunSummary
from marc.extras import require

if TYPE_CHECKING:
    from rich.console import Console


def load_engine(method: Method, options: EngineOptions) -> Engine:
    """The engine of one method; under torchrun on this process's GPU."""
    import torch

    from marc.evaluation.assistant_engine import AssistantEngine

    if options.model.device is None and torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        options = replace(options, model=replace(options.model, device=device))
    return AssistantEngine(method, options)


@dataclass(frozen=True)
class Task:
    """One benchmark by one protocol, with its samples, and the folder below which its videos lie."""

    benchmark: Benchmark
    protocol: str
    samples: Sequence[Sample]
    videos: Path

    @property
    def spec(self) -> ProtocolSpec:
        """What the protocol says."""
        return self.benchmark.spec(self.protocol)


def load_tasks(names: Sequence[str], options: TaskOptions, wait: Callable[[], None]) -> list[Task]:
    """Benchmarks by name or file, their samples read; the micro-world is made where it is missing.

    Args:
        names: See `marc.evaluation.benchmarks.find_benchmark`.
        options: By which rules, and where they are.
        wait: Returns once all processes have called it (`marc.evaluation.runner.processes`).

    Raises:
        ValueError: If a name, a file or a row is wrong.
    """
    require("eval", "scipy", "matplotlib")
    tasks = []
    for name in names:
        benchmark = find_benchmark(name)
        folder = _world_folder(options.data, wait) if benchmark is WORLD else options.data
        protocol = options.protocol or benchmark.default_protocol
        samples = load_samples(
            benchmark,
            protocol=protocol,
            data=folder,
            videos=options.videos,
            allow_outside=options.allow_outside,
            style=options.style,
            limit=options.limit,
        )
        tasks.append(Task(benchmark, protocol, samples, options.videos or folder))
    return tasks


def _world_folder(data: Path, wait: Callable[[], None]) -> Path:
    """The folder of ``eval_world.json``; the main process makes it."""
    if (data / "eval_world.json").exists():
        return data
    folder = data / "world"
    if Shard.from_environment().rank == 0 and not (folder / "eval_world.json").exists():
        from marc.world.export import export_world

        export_world(folder, workers=os.cpu_count() or 1)
    wait()
    return folder


def run_task(
    task: Task,
    engine: Engine | EnginePool,
    folder: Path,
    options: RunOptions,
    console: Console,
    wait: Callable[[], None],
) -> RunSummary | None:
    """Runs what is left to run and reports.

    Args:
        task: What is asked.
        engine: Who answers.
        folder: The run's folder, named after the method.
        options: How it is asked and scored.
        console: Where progress and results are shown.
        wait: Returns once all processes have called it.

    Returns:
        The summary in the main process, None in the others.
    """
    main = options.shard.rank == 0
    console.quiet = not main
    card = run_card(task.benchmark, options.protocol, folder.name, task.samples, engine, options.generation)
    open_run(folder, card, main=main)
    mine = {sample.id for batch in options.shard.batches(task.samples, options.batch_size) for sample in batch}
    rows = [row for row in read_run_rows(folder) if row["id"] in mine]
    done = [row for row in rows if row["status"] == "ok" or not options.retry_failed]
    with progress(console, f"{task.benchmark.name} {folder.name}", done, len(mine)) as on_row:
        run(task.samples, engine, folder, options, on_row)
    wait()
    if not main:
        return None
    summary = write_report(folder)
    for table in tables(summary):
        table.show(console)
    console.print(f"report: {folder / 'report.md'}", highlight=False, markup=False)
    return summary
