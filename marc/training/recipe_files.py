"""What a file must be to be read as a recipe: small, flat, and without what a parser could be kept busy with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path

import yaml

LARGEST = 100_000
"""Bytes of a recipe; ours have some thousand."""
DEEPEST = 20


def recipe_in(typed: Sequence[str]) -> str | None:
    """The file that a command line names as its recipe."""
    return next((path for flag, path in pairwise(typed) if flag == "--config"), None)


def check_typed(typed: Sequence[str], known: Collection[str]) -> None:
    """Refuses options of a command line that a run does not have; a unique beginning stands for an option.

    Args:
        typed: The command line.
        known: Names of all options, with underscores.

    Raises:
        ValueError: Naming the first, and what it might have been.
    """
    for word in typed:
        name = word.partition("=")[0].removeprefix("--").replace("-", "_")
        if word.startswith("--") and name and not any(one.startswith(name) for one in known):
            raise ValueError(f"no option is called --{name}{_alike(name, known)}")


def _alike(name: str, known: Collection[str]) -> str:
    alike = get_close_matches(name, known, n=1)
    return f"; did you mean {alike[0]}?" if alike else "; --help lists them"


def check_recipe(path: str, known: Collection[str] = ()) -> None:
    """Refuses what is no recipe before anything is built of it.

    Aliases (``*name``) stand for a value once more, so that a few lines describe more than any memory holds. ``env``
    would set environment variables, by which another program could be run.

    Args:
        path: The file.
        known: Names of all options that a recipe may have; empty: they are not looked at.

    Raises:
        ValueError: Naming the file.
        OSError: It cannot be read.
    """
    content = Path(path).read_bytes()
    if len(content) > LARGEST:
        raise ValueError(f"{path}: {len(content)} bytes are no recipe; the largest have {LARGEST}")
    depth = 0
    try:
        for event in yaml.parse(content.decode("utf-8"), Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"{path}: *{event.anchor}: a recipe says each value itself, without aliases")
            if depth > DEEPEST:
                raise ValueError(f"{path}: a recipe is YAML with plain values, one option a line: nested too deeply")
            if depth == 1 and isinstance(event, yaml.ScalarEvent) and event.value == "env":
                raise ValueError(f"{path}: env: a recipe sets no environment variables; set them in the shell")
        values = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: a recipe is YAML with plain values, one option a line: {reason}") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ValueError(f"{path}: a recipe must contain a YAML mapping of names to plain values, one option a line")
    for name in values if known else ():
        if name not in known:
            raise ValueError(f"{path}: no option is called {name[:80]}{_alike(name, known)}")
