"""``marc bench``: a door to the bench of the source checkout, `benchmarks.bench`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from marc.cli.checkout import PASSED_ON, from_checkout, is_checkout
from marc.cli.errors import user_errors
from marc.cli.options import Budget, Given, Part, command, compression_changes
from marc.compression.config import CompressionConfig

SUMMARY = "Compare stock transformers, the published setting and ours: time by stage, memory, counted limits."


def add_bench(app: typer.Typer) -> None:
    """Adds the command, with the bench's options where the bench is."""
    if is_checkout("benchmarks"):
        app.command("bench", help=SUMMARY)(_derived(from_checkout("benchmarks.bench")))
    else:
        app.command("bench", help=SUMMARY, context_settings=PASSED_ON)(_missing)


def _derived(bench: Any) -> Any:
    def run(*, options: Any, own: Any, budget: Any = None, given: Any) -> None:
        bench.main(options, compression_changes(given, own, budget) or None)

    run.__annotations__ = {
        "options": Annotated[Any, Part(record=bench.BenchOptions)],
        "own": Annotated[Any, Part(record=CompressionConfig, otherwise="as in the setting 'inside'")],
        "budget": Budget,
        "given": Given,
    }
    return command("bench", old={"--attention": "--attn-implementation"})(run)


def _missing(context: typer.Context) -> None:
    with user_errors("marc bench"):
        from_checkout("benchmarks.bench")
