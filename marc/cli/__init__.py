"""The ``marc`` command: one module per group of sub-commands, registered here; `marc --help` lists them.

Modules import torch and models inside their functions, so that ``marc --help`` answers at once.
"""

import typer

app = typer.Typer(
    help="Ask questions about videos from one frame's worth of visual tokens.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def main() -> None:
    """Entry point of the ``marc`` command."""
    app()
