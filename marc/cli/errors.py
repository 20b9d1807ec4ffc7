"""How commands report what is wrong with their arguments or files: in one line, without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def user_errors(command: str) -> Iterator[None]:
    """Turn a `ValueError` or `OSError` into a line on stderr that names the command, and exit code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"{command}: {error}", err=True)
        raise typer.Exit(2) from error
