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
from marc.terminal import in_one_line


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
    """Commands that say in one line what is wrong with what was typed, as `user_errors` does with what it means."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """As every group."""
        with _usage_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """As every group."""
        with _usage_errors(ctx):
            return super().invoke(ctx)


@contextmanager
def _usage_errors(group: Any = None) -> Iterator[None]:
    """Turns an error about what was typed into a line.

    Args:
        group: Context of the group of commands, for errors that do not know theirs.
    """
    try:
        yield
    except TyperException as error:
        context = getattr(error, "ctx", None) or group
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        message = error.format_message().rstrip(".").replace(" Did you mean", "; did you mean")
        said = message[:1].lower() + message[1:]
        command = context.command_path if context else "marc"
        if group is not None and context is group and group.invoked_subcommand:
            command += f" {group.invoked_subcommand}"
        echo(in_one_line(f"{command}: {said}; `{command} --help` says what there is"), err=True)
        raise typer.Exit(error.exit_code) from error
