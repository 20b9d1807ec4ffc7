"""``marc arena``: rules that reduce visual tokens, asked the same questions at the same cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marc.cli.options import Part, command
from marc.cli.output import echo
from marc.cli.progress import share_bar
from marc.types import ModelOptions
from marc.world.options import WorldOptions


@command("arena")
def arena(
    folder: Annotated[Path, typer.Argument(help="Of the rows, the report and the picture; a killed run goes on.")],
    *,
    rule: Annotated[
        list[str] | None,
        typer.Option(help="A layout, 'events blind' or a rule; repeat it.", show_default="all"),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="Budget, as a part of every token's cost in the prompt; repeat it.",
            show_default="1/128, 1/32, 1/10, 1/4",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of the world, each with its own videos.")] = 3,
    style: Annotated[
        str | None, typer.Option(help="short, plain, video-r1 or video-r1-train.", show_default="the model's")
    ] = None,
    model: Annotated[ModelOptions, Part(("name",))],
    world: Annotated[WorldOptions, Part(defaults={"seed": 1, "videos": 60, "questions": 24})],
) -> None:
    """Compare rules that reduce visual tokens on fresh videos of the micro-world."""
    from marc.data.prompts import check_style
    from marc.evaluation.arena.options import CONTESTANTS, PARTS, ArenaOptions
    from marc.evaluation.arena.report import standings, write_report
    from marc.evaluation.arena.rounds import play
    from marc.model.loading import load_model

    check_style(style)
    options = ArenaOptions(world, seeds, tuple(rule or CONTESTANTS), tuple(part or PARTS), style)
    loaded, processor = load_model(model.name, device="cpu")
    rounds = []
    with share_bar("videos") as show:
        for each, total in play(loaded, processor, options, folder):
            rounds.append(each)
            show(len(rounds) / total)
    echo(write_report(standings(rounds, options), options, folder))
