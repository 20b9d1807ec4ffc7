"""``python -m experiments.arena``: trains the arena's model, and asks what can be known from fewer tokens at all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marc.cli.errors import user_errors

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


@app.command()
def train(
    folder: Annotated[Path, typer.Argument(help="Of checkpoints, log and model; a killed run goes on from there.")],
    seed: Annotated[int, typer.Option(help="Another seed makes another model.")] = 0,
) -> None:
    """Train a model of the level arena on every visual token."""
    from experiments.arena.settings import ArenaSettings
    from experiments.arena.train import train_arena

    with user_errors("experiments.arena train"):
        train_arena(ArenaSettings(seed=seed), folder)


@app.command()
def deepen(
    folder: Annotated[Path, typer.Argument(help="Of checkpoints, log and model; a killed run goes on from there.")],
    model: Annotated[Path, typer.Option(help="Folder of the trained model.")],
    blocks: Annotated[int, typer.Option(help="Of the new vision tower.", min=2)] = 8,
    tower_steps: Annotated[int, typer.Option(help="In which it learns to tell what is there.", min=1)] = 3000,
    word_steps: Annotated[int, typer.Option(help="In which it learns to say that in words.", min=1)] = 1200,
    seed: Annotated[int, typer.Option(help="With which the model was trained.")] = 0,
) -> None:
    """Put a deeper vision tower before a trained language model; both speak in the same words."""
    from experiments.arena.settings import ArenaSettings
    from experiments.arena.train import deepen as train_deeper

    with user_errors("experiments.arena deepen"):
        settings = ArenaSettings(seed, tower_blocks=blocks, tower_steps=tower_steps, word_steps=word_steps)
        train_deeper(model, settings, folder)


@app.command()
def reader(
    videos: Annotated[int, typer.Option(help="Test videos.")] = 60,
    questions: Annotated[int, typer.Option(help="Questions about each.")] = 24,
    seed: Annotated[int, typer.Option(help="Of the videos and of what is kept at random.")] = 0,
) -> None:
    """What an ideal reader answers right from a part of the tokens, by rule: no model is asked."""
    from experiments.arena.ideal import ideal_table

    with user_errors("experiments.arena reader"):
        typer.echo(ideal_table(videos, questions, seed))


@app.command()
def bars(
    model: Annotated[Path, typer.Argument(help="Folder of the model.")],
    phase: Annotated[
        int, typer.Option(help="Of the curriculum, whose videos are asked about; the last is the level.")
    ] = -1,
    videos: Annotated[int, typer.Option(help="Test videos.")] = 60,
    questions: Annotated[int, typer.Option(help="Questions about each.")] = 24,
    seed: Annotated[int, typer.Option(help="Of the videos.")] = 0,
) -> None:
    """What a trained model answers right from every token, and from a quarter and a 32nd of them at random."""
    from experiments.arena.bars import measure_bars
    from experiments.arena.settings import CURRICULUM

    with user_errors("experiments.arena bars"):
        if not -len(CURRICULUM) <= phase < len(CURRICULUM):
            raise ValueError(f"--phase must be from 0 to {len(CURRICULUM) - 1}, got {phase}")
        typer.echo(measure_bars(model, CURRICULUM[phase], videos=videos, questions=questions, seed=seed))


@app.command()
def scope(
    model: Annotated[Path, typer.Argument(help="Folder of the model.")],
    layout: Annotated[str, typer.Option(help="In which frames are shown.")] = "details",
    scope: Annotated[
        list[str] | None, typer.Option(help="moments, all or auto; repeat it.", show_default="all three")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="A part of what every token costs, such as 1/32; or a budget: auto:64. Repeat it.",
            show_default="1/32",
        ),
    ] = None,
    videos: Annotated[int, typer.Option(help="Test videos.")] = 60,
    questions: Annotated[int, typer.Option(help="Questions about each.")] = 24,
    seed: Annotated[int, typer.Option(help="Of the videos.")] = 0,
) -> None:
    """Which kinds of questions are answered better from retrieved moments, and which from evenly spread frames."""
    from experiments.arena.scope import SCOPES, measure_scopes, scope_table, ways_of

    with user_errors("experiments.arena scope"):
        if unknown := set(scope or ()) - set(SCOPES):
            raise ValueError(f"--scope must be one of {', '.join(SCOPES)}, got {', '.join(sorted(unknown))}")
        ways = ways_of([each for each in SCOPES if not scope or each in scope], budget or ["1/32"])
        typer.echo(scope_table(measure_scopes(model, layout, ways, videos=videos, questions=questions, seed=seed)))


if __name__ == "__main__":
    app(prog_name="python -m experiments.arena")
