"""What commands do with options: tell which were given, and refuse those that would have no effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def given(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def refuse_beside(switch: str, is_on: bool, options: Mapping[str, Any]) -> None:
    """Refuses options that a switch makes void.

    Raises:
        ValueError: Naming them.
    """
    if is_on and options:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in options)
        raise ValueError(f"{switch} leaves nothing for {names} to do; leave one of them out")


def whole_number(option: str, text: str, also: str = "") -> int:
    """Reads a number that may also be something else.

    Args:
        option: Its name.
        text: As it was typed.
        also: What else it may be, for the message.

    Raises:
        ValueError: If it is none.
    """
    if not text.isdecimal():
        raise ValueError(f"{option} must be a whole number{also}, got {text!r}")
    return int(text)


def number_of_events(text: str) -> int | str:
    """The value of ``--k``.

    Raises:
        ValueError: If it is neither a whole number nor ``auto``.
    """
    return text if text == "auto" else whole_number("--k", text, " or auto")
