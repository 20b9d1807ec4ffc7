"""Times as users write them and as they are said to users: as on a clock."""

from __future__ import annotations

import re

_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):(?=[0-5]?\d(?:\D|$)))?(\d+(?:\.\d*)?)", re.ASCII)


def seconds_of(text: str, option: str) -> float:
    """A time in seconds from ``"90"``, ``"1:30"`` or ``"0:01:30.5"``.

    Args:
        text: As the user wrote it.
        option: For which one, for messages.

    Raises:
        ValueError: If it is no time.
    """
    if not (match := _CLOCK.fullmatch(text.strip())):
        raise ValueError(f"{option} must be seconds or a time such as 1:02:03.5, got {text!r}")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def clock(seconds: float) -> str:
    """A time as hours, minutes and seconds, such as ``"0:01:30.5"``."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours:d}:{minutes:02d}:{rest:04.1f}"
