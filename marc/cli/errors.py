"""How commands report what is wrong with their arguments or files: in one line, without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from marc.extras import MissingExtraError


@contextmanager
def user_errors(command: str) -> Iterator[None]:
    """Turn what a user can mend into a line on stderr that names the command, and exit code 2.

    That is a `ValueError`, an `OSError`, and an extra that is not installed.
    """
    try:
        yield
    except (ValueError, OSError, MissingExtraError) as error:
        typer.echo(f"{command}: {error}", err=True)
        raise typer.Exit(2) from error
