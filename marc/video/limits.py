"""The limits of decoding that hold in this process and in those that it starts (`marc.video.options.DecodeLimits`).

They are kept in the environment, because workers and decoding processes inherit that; whoever runs a recipe or a
script sets them there: ``MARC_DECODE_LIMITS='{"memory_gib": 8}'``. What is not named has its default.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache

from marc.options import options_of
from marc.video.errors import VideoError
from marc.video.options import DecodeLimits

VARIABLE = "MARC_DECODE_LIMITS"


def set_limits(limits: DecodeLimits) -> None:
    """Let limits hold from now on."""
    os.environ[VARIABLE] = json.dumps(asdict(limits))


def current_limits() -> DecodeLimits:
    """Those that hold.

    Raises:
        ValueError: The environment variable cannot be read.
    """
    return _parsed(os.environ.get(VARIABLE, "{}"))


@contextmanager
def limits_of(limits: DecodeLimits) -> Iterator[None]:
    """Let limits hold for a while, also in other threads of this process."""
    before = os.environ.get(VARIABLE)
    set_limits(limits)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


@lru_cache(maxsize=8)
def _parsed(text: str) -> DecodeLimits:
    try:
        return DecodeLimits(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{VARIABLE}={text!r}: {error}; give a JSON object of limits") from error


def beyond(path: str, found: str, field: str) -> VideoError:
    """The error of a file that asks for more than a limit allows.

    Args:
        path: The file.
        found: What it asks for.
        field: The limit's, of `DecodeLimits`.
    """
    flag = next(option.flag for option in options_of(DecodeLimits) if option.field == field)
    most = getattr(current_limits(), field)
    return VideoError(
        f"{path}: {found}; at most {most:.15g} may be ({flag}): allow more if you trust the file, or make it smaller"
    )


def out_of_memory(path: str) -> VideoError:
    """The error of a file for which a decoding process got no more memory."""
    return beyond(path, "decoding it needs more memory, in GiB, than it is given", "memory_gib")
