"""One benchmark with one method: prepare the folder, run, wait for the other processes, report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marc.evaluation.benchmarks import Benchmark
from marc.evaluation.engine import Engine, Generation
from marc.evaluation.methods import Method
from marc.evaluation.progress import progress
from marc.evaluation.report import RunSummary, tables, write_report
from marc.evaluation.run_card import run_card
from marc.evaluation.runner import Shard, open_run, read_run_rows, run
from marc.evaluation.samples import Sample

if TYPE_CHECKING:
    from rich.console import Console


def load_engine(model: str, method: Method, frames: Mapping[str, Any], **options: Any) -> Engine:
    """The engine of one method; under torchrun on this process's GPU.

    Args:
        model: ``"tiny"``, a folder or a hub name.
        method: How visual tokens are spent.
        frames: Fields of `marc.assistant.FrameOptions`.
        options: Options of `marc.assistant.VideoAssistant`.
    """
    import torch

    from marc.assistant import FrameOptions
    from marc.evaluation.assistant_engine import AssistantEngine

    if options.get("device") is None and torch.cuda.is_available():
        options["device"] = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return AssistantEngine(model, method, FrameOptions(**frames), **options)


def run_benchmark(
    benchmark: Benchmark,
    samples: Sequence[Sample],
    engine: Engine,
    folder: Path,
    console: Console,
    wait: Callable[[], None],
    *,
    protocol: str,
    generation: Generation,
    batch_size: int,
    retry_failed: bool = False,
) -> RunSummary | None:
    """Runs what is left to run and reports.

    Args:
        benchmark: What is asked.
        samples: All of its samples.
        engine: Who answers.
        folder: The run's folder, named after the method.
        console: Where progress and results are shown.
        wait: Returns once all processes have called it (`marc.evaluation.runner.processes`).
        protocol: By which rules.
        generation: How answers are generated.
        batch_size: Samples at once.
        retry_failed: Ask again what failed earlier.

    Returns:
        The summary in the main process, None in the others.
    """
    shard = Shard.from_environment()
    main = shard.rank == 0
    open_run(folder, run_card(benchmark, protocol, folder.name, samples, engine, generation), main=main)
    mine = shard.of(samples)
    ids = {sample.id for sample in mine}
    rows = [
        row for row in read_run_rows(folder) if row["id"] in ids and not (retry_failed and row["status"] == "failed")
    ]
    console.quiet = not main
    with progress(console, f"{benchmark.name} {folder.name}", rows, len(mine)) as on_row:
        run(
            samples,
            engine,
            folder,
            protocol=protocol,
            generation=generation,
            batch_size=batch_size,
            shard=shard,
            retry_failed=retry_failed,
            on_row=on_row,
        )
    wait()
    if not main:
        return None
    summary = write_report(folder)
    for table in tables(summary):
        console.print(table.rich())
    console.print(f"report: {folder / 'report.md'}", highlight=False)
    return summary
