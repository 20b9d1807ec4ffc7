"""The ``marc`` command: one module per group of sub-commands, registered here; `marc --help` lists them.

Modules import torch and models inside their functions, so that ``marc --help`` answers at once.
"""

import gc
import os
import sys
import traceback
from typing import Annotated

import typer

from marc.cli import arena, ask, bench, chat, data, evaluate, export, memory, serve, train, watch, world
from marc.cli.errors import Commands, user_errors
from marc.cli.output import echo
from marc.cli.verbosity import Quiet, Verbose, set_verbosity
from marc.terminal import log_harmlessly

app = typer.Typer(
    cls=Commands,
    help="Ask questions about videos from one frame's worth of visual tokens.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        from marc.version import __version__

        echo(f"marc {__version__}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Ask questions about videos from one frame's worth of visual tokens."""
    with user_errors("marc"):
        set_verbosity(verbose, quiet)


app.command()(ask.ask)
app.command()(chat.chat)
app.command()(serve.serve)
app.command()(memory.remember)
app.command()(memory.recall)
app.command()(memory.forget)
app.command()(watch.watch)
app.command("eval")(evaluate.evaluate)
app.command()(evaluate.report)
app.command()(arena.arena)
app.command()(export.export)
bench.add_bench(app)
app.add_typer(data.app, name="data")
app.add_typer(train.app, name="train")
app.add_typer(world.app, name="world")


def main() -> None:
    """Entry point of the ``marc`` command."""
    _run_thriftily()
    log_harmlessly()
    try:
        app()
    except Exception:
        echo(traceback.format_exc(), err=True, nl=False)
        sys.exit(1)
    finally:
        gc.freeze()  # what is still there goes with the process, without being looked through


def _run_thriftily() -> None:
    """Sets what has to be set before anything heavy is imported.

    Importing torch and transformers makes half a million objects that stay: looking for garbage after every 700
    is a sixth of the time. And threads that wait for each other at the end of every operation sleep, where OpenMP's
    would spin and take the processor from those that have work.
    """
    gc.set_threshold(50_000, 10, 10)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
