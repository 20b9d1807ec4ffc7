"""``marc export``: a trained model as one folder to share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marc.cli.options import Part, command
from marc.cli.output import echo
from marc.io import size_below
from marc.types import ModelOptions


@command("export")
def export(
    checkpoint: Annotated[str, typer.Argument(help="A folder or a hub name; LoRA's adapters are merged.")],
    output: Annotated[Path, typer.Argument(help="Folder to write; it must not be there, or be empty.")],
    *,
    plain: Annotated[
        bool,
        typer.Option("--plain", help="As transformers' own classes, which load without marc and compress nothing."),
    ] = False,
    run: Annotated[
        list[Path] | None, typer.Option(help="A run of marc eval whose results the model card shows; repeat it.")
    ] = None,
    model: Annotated[ModelOptions, Part(("dtype",), helps={"dtype": "Of the weights; none: as they are stored."})],
) -> None:
    """Write a model as one folder with its processor and a model card."""
    results = _results(run or [])
    from marc.model.export import export_model

    folder = export_model(checkpoint, output, plain=plain, dtype=model.dtype, results=results)
    size = size_below(folder)
    echo(f"{folder}: {size / 2**20:.1f} MiB; look at {folder / 'README.md'} before you share it")


def _results(runs: list[Path]) -> str:
    """What the runs came to, in Markdown."""
    if not runs:
        return ""
    from marc.evaluation.report import side_by_side
    from marc.evaluation.summary import summarise

    return side_by_side([summarise(run) for run in runs]).markdown()
