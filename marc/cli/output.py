"""The one place through which commands print: text is made harmless for a terminal, JSON stays JSON.

Nothing else in `marc.cli` prints, or makes a console; tests/cli/test_output.py keeps that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer

from marc.terminal import harmless

if TYPE_CHECKING:
    from rich.console import Console


def echo(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Prints a text that may hold anything.

    Args:
        text: It; line feeds and tabs stay.
        err: To the error stream.
        nl: With a line feed at the end.
    """
    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"
    typer.echo(harmless(str(text)).encode(encoding, "backslashreplace").decode(encoding), err=err, nl=nl)


def echo_json(value: Any) -> None:
    """Prints a value as one line of JSON in ASCII without control characters."""
    typer.echo(json.dumps(value).replace("\x7f", "\\u007f"))


def make_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A rich console whose text is harmless, whatever tables and bars are made of."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class HarmlessConsole(Console):
        """Leaves the console's own sequences alone: segments of control are no text."""

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=harmless(segment.text))

    return HarmlessConsole(stderr=stderr, quiet=quiet)
