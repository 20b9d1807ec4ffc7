"""The ``marc`` command: one module per group of sub-commands, registered here; `marc --help` lists them.

Modules import torch and models inside their functions, so that ``marc --help`` answers at once.
"""

from typing import Annotated

import typer

from marc.cli import ask, bench, data, evaluate, memory, train, world

app = typer.Typer(
    help="Ask questions about videos from one frame's worth of visual tokens.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        from marc.version import __version__

        typer.echo(f"marc {__version__}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Ask questions about videos from one frame's worth of visual tokens."""


app.command()(ask.ask)
app.command()(memory.remember)
app.command()(memory.recall)
app.command()(memory.forget)
app.command("eval")(evaluate.evaluate)
app.command()(evaluate.report)
bench.add_bench(app)
app.add_typer(data.app, name="data")
app.add_typer(train.app, name="train")
app.add_typer(world.app, name="world")


def main() -> None:
    """Entry point of the ``marc`` command."""
    app()
