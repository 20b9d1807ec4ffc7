"""How much a command says beside its result: ``-v`` and ``-q``, before the command's name or among its options.

The level of the logger ``marc`` holds it: WARNING by default, INFO and DEBUG with ``-v`` and ``-vv``, ERROR with
``-q``.
"""

from __future__ import annotations

import logging
import os
from typing import Annotated

import typer

from marc.cli.output import echo
from marc.terminal import HarmlessFormatter

Verbose = Annotated[
    int,
    typer.Option(
        "--verbose", "-v", count=True, help="Log what is done on stderr; -vv: in detail.", show_default=False
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks: results and errors only.")]

_HANDLER = "marc.cli"
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


def set_verbosity(verbose: int, quiet: bool) -> None:
    """Holds the package, and with ``quiet`` transformers and the hub, to what is to be said.

    Args:
        verbose: How often ``-v`` was given.
        quiet: Whether ``-q`` was.

    Raises:
        ValueError: Both were.
    """
    if verbose and quiet:
        raise ValueError("--quiet leaves nothing for --verbose to say; leave one of them out")
    logger = logging.getLogger("marc")
    logger.setLevel(logging.ERROR if quiet else _LEVELS[min(verbose, len(_LEVELS) - 1)])
    for handler in [handler for handler in logger.handlers if handler.name == _HANDLER]:
        logger.removeHandler(handler)
    if verbose:
        handler = logging.StreamHandler()
        handler.set_name(_HANDLER)
        handler.setFormatter(HarmlessFormatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    if quiet:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def is_quiet() -> bool:
    """Whether neither progress nor remarks are wanted."""
    return not logging.getLogger("marc").isEnabledFor(logging.WARNING)


def remark(text: str) -> None:
    """Says something on stderr that is neither result nor error."""
    if not is_quiet():
        echo(text, err=True)
