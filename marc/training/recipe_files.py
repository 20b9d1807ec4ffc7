"""What a file must be to be read as a recipe: small, flat, and without what a parser could be kept busy with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import yaml

LARGEST = 100_000
"""Bytes of a recipe; ours have some thousand."""
DEEPEST = 20


def recipe_in(typed: Sequence[str]) -> str | None:
    """The file that a command line names as its recipe."""
    return next((path for flag, path in pairwise(typed) if flag == "--config"), None)


def check_recipe(path: str) -> None:
    """Refuses what is no recipe before anything is built of it.

    Aliases (``*name``) stand for a value once more, so that a few lines describe more than any memory holds. ``env``
    would set environment variables, by which another program could be run.

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
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: a recipe is YAML with plain values, one option a line: {reason}") from error
