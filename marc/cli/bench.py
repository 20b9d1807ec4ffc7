"""``marc bench``: stock transformers, the published setting and ours, measured in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WIDTH = 150
"""Characters that the tables need."""


def bench(
    model: Annotated[
        str,
        typer.Option(help="3b, 7b, scaled (the 3B made small for a CPU), or where a config.json is."),
    ] = "scaled",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    output: Annotated[Path, typer.Option(help="Folder for bench.json, bench.md and bench.png.")] = Path(
        "outputs/bench"
    ),
    repeats: Annotated[int, typer.Option(help="Measured rounds.")] = 7,
    seconds: Annotated[float, typer.Option(help="No new round after this time, once there are three.")] = 30.0,
    new_tokens: Annotated[int, typer.Option(help="Tokens of every answer.")] = 16,
    frames: Annotated[int, typer.Option(help="Frames that stock transformers reads.")] = 64,
    attention: Annotated[str | None, typer.Option(help="As transformers' attn_implementation.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32 or bfloat16. Default: bfloat16 on a GPU, float32 on a CPU.")
    ] = None,
    video: Annotated[str | None, typer.Option(help="A file of your own instead of the generated one.")] = None,
    processor_time: Annotated[
        bool, typer.Option("--processor-time", help="Time by the processor, not the wall: for a busy CPU.")
    ] = False,
    accuracy: Annotated[int, typer.Option(help="Generated videos for the accuracy of each setting; 0: none.")] = 4,
    endurance: Annotated[int, typer.Option(help="Questions asked in a row, to see whether memory grows.")] = 0,
) -> None:
    """Compare stock transformers, the published setting and ours: time by stage, memory, counted limits."""
    from dataclasses import replace
    from functools import partial

    from rich.console import Console

    from benchmarks.accuracy import measure_accuracy
    from benchmarks.bench import BenchOptions, run_bench
    from benchmarks.report import summary, tables, write_report
    from marc.cli.errors import user_errors

    say = partial(typer.echo, err=True)
    with user_errors("marc bench"):
        options = BenchOptions(
            model=model,
            device=device,
            repeats=repeats,
            seconds=seconds,
            new_tokens=new_tokens,
            frames=frames,
            attn_implementation=attention,
            dtype_name=dtype,
            video=video,
            processor_time=processor_time,
            endurance=endurance,
        )
        result = run_bench(options, report=say)
        write_report(result, output)
        if accuracy:
            say(f"accuracy on {accuracy} generated videos")
            result = replace(result, accuracies=measure_accuracy(accuracy))
            write_report(result, output)
    console = Console(width=max(WIDTH, Console().width))
    console.print(summary(result), markup=False)
    for table in tables(result):
        console.print(table.rich())
    console.print(f"{output}/bench.json, bench.md, bench.png")
