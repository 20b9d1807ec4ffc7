"""``marc world``: the micro-world from the command line: a sample, a data set, how well a model answers it.

How the embedded model was trained, and what the training methods are worth, is in the source checkout: ``train``,
``train-embedder``, ``ablation``, ``reinforcement`` and ``rivals`` are doors to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from marc.cli.checkout import PASSED_ON, from_checkout
from marc.cli.errors import user_errors
from marc.cli.options import Part, command
from marc.cli.output import echo, make_console
from marc.compression.config import CompressionConfig
from marc.types import ModelOptions
from marc.world.options import WorldOptions

if TYPE_CHECKING:
    from marc.world.measure import Measured

app = typer.Typer(help="The micro-world: small videos with questions that can be made anywhere.", no_args_is_help=True)


@app.command()
@command("world sample")
def sample(
    video: Annotated[Path, typer.Argument(help="Video file to write; its questions go beside it as .json.")] = Path(
        "sample.mp4"
    ),
    *,
    world: Annotated[WorldOptions, Part(("level", "seed", "questions"), defaults={"questions": 8})],
) -> None:
    """Write a video of half a minute with a few events, its questions and their answers."""
    import json

    from marc.world.export import write_sample

    path = write_sample(video, seed=world.seed, level=world.level, questions=world.questions)
    rows = json.loads(path.read_text(encoding="utf-8"))["questions"]
    echo(f"{video} and {path}")
    for row in rows:
        options = f" ({', '.join(row['options'])})" if row["options"] else ""
        echo(f"  {row['problem']}{options}  {row['solution']}")


@app.command()
@command("world export")
def export(
    folder: Annotated[Path, typer.Argument(help="Receives videos/, eval_world.json and export.json, the settings.")],
    *,
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Splits share no video.")] = "test",
    scale: Annotated[
        int | None, typer.Option(help="Enlargement of the world's pixels.", show_default="8; level arena: 4")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that write videos.")] = 1,
    world: WorldOptions,
) -> None:
    """Write a data set in Video-R1's format: H.264 files and rows with questions; never over one of other settings."""
    from marc.world.export import FileOptions, export_world

    options = None if scale is None else FileOptions(scale=scale)
    path = export_world(folder, world, split=split, options=options, workers=workers)
    echo(f"{path}")


@app.command()
@command("world measure")
def measure(
    *,
    layout: Annotated[
        list[str] | None,
        typer.Option(
            help="full, events, 'events blind', frames or blank, or a budget such as tokens:16 or, behind a rule, "
            "'details auto:8'; repeat it.",
            show_default="the first five",
        ),
    ] = None,
    style: Annotated[
        str | None, typer.Option(help="short, plain, video-r1 or video-r1-train.", show_default="the model's")
    ] = None,
    model: Annotated[ModelOptions, Part(("name",))],
    world: Annotated[WorldOptions, Part(defaults={"seed": 1, "videos": 128, "questions": 24})],
    merging: Annotated[
        dict[str, Any], Part(("ratio", "window", "merge", "tower_layer"), CompressionConfig, otherwise="the model's")
    ],
) -> None:
    """Accuracy on fresh test videos, without files: thousands of questions in a minute."""
    from functools import partial

    from rich.table import Table

    from marc.data.prompts import check_style
    from marc.model.loading import load_model
    from marc.world.measure import LAYOUTS, at_budget, mean_visual_tokens, summarise
    from marc.world.measure import measure as measure_layout

    check_style(style)
    loaded, processor = load_model(model.name, device="cpu", **merging)
    for name in set(layout or ()) - set(LAYOUTS):
        at_budget(name, loaded.config.compression)
    ask = partial(measure_layout, loaded, processor, world, style=style)
    results = {name: ask(layout=name) for name in layout or LAYOUTS}
    results["another video"] = ask(layout="events", shuffled=True)
    columns = {name: summarise(some) for name, some in results.items()}
    table = Table("questions", "n", *columns)
    first = next(iter(columns.values()))
    for group, (_, count) in first.items():
        table.add_row(group, str(count), *(f"{column[group][0]:.3f}" for column in columns.values()))
    table.add_row("visual tokens", "", *(f"{mean_visual_tokens(some):.1f}" for some in results.values()))
    make_console().print(table)
    (base, of_base), *others, _ = results.items()
    for name, some in others:
        echo(f"{name}: {_ahead(some, of_base)} against {base}")


def _ahead(layout: Sequence[Measured], base: Sequence[Measured]) -> str:
    """How far a layout is ahead of another one on the same questions, at which part of its tokens."""
    from marc.evaluation.statistics import compare_paired
    from marc.evaluation.tables import interval
    from marc.world.measure import mean_visual_tokens

    ours, theirs = ([float(each.correct) for each in results] for results in (layout, base))
    ahead = compare_paired(theirs, ours, [each.video for each in base]).difference
    part = mean_visual_tokens(layout) / mean_visual_tokens(base)
    return f"{interval(ahead, signed=True, digits=1)} points at {part:.2f} of the visual tokens"


def _door(name: str, summary: str) -> None:
    """Adds a command that is a program of the checkout's ``experiments``."""

    def run(context: typer.Context) -> None:
        with user_errors(f"marc world {name}"):
            from_checkout("experiments.commands").main([name, *context.args])

    app.command(name, help=f"{summary} Comes with the source checkout.", context_settings=PASSED_ON)(run)


_door("train", "Train the embedded model from scratch and save it with its log.")
_door("train-embedder", "Train the dual encoder that the memory uses offline.")
_door("ablation", "Compare SFT, C-GRPO, distillation and mixed budgets at equal time.")
_door("reinforcement", "Compare C-GRPO with more SFT and rejection sampling from one start, at equal time.")
_door("rivals", "Compare rules that reduce visual tokens after training in their own layouts.")
