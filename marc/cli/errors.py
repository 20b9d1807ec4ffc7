"""How commands report what is wrong with their arguments or files: in one line, without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from marc.cli.output import echo
from marc.extras import MissingExtraError
from marc.io import message_of
from marc.terminal import harmless, in_one_line


@contextmanager
def user_errors(command: str) -> Iterator[None]:
    """Turn what a user can mend into a line on stderr that names the command, and exit code 2.

    That is a `ValueError`, an `OSError`, and an extra that is not installed.
    """
    try:
        yield
    except (ValueError, OSError, MissingExtraError) as error:
        echo(in_one_line(f"{command}: {message_of(error)}"), err=True)
        raise typer.Exit(2) from error


class Commands(TyperGroup):
    """Commands whose errors about what was typed are harmless: shells put file names among options."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """As every group."""
        with _harmless_usage():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """As every group."""
        with _harmless_usage():
            return super().invoke(ctx)


@contextmanager
def _harmless_usage() -> Iterator[None]:
    try:
        yield
    except TyperException as error:
        if "message" in vars(error):
            vars(error)["message"] = harmless(str(vars(error)["message"]))
        raise
