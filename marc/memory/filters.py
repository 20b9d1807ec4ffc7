"""Which events of a library are looked at: those of some videos, of a part of each, or of videos with some tags."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from marc.memory.addresses import is_address, source_name


@dataclass(frozen=True)
class EventFilter:
    """What an event must be to be looked at; by default any.

    Attributes:
        videos: Files, folders and addresses in object stores, one of which it is of or below. They need not exist any
            more.
        after: It ends later than so many seconds from the beginning of its video.
        before: It begins earlier than so many.
        tags: All of which its video has.

    Raises:
        ValueError: A time is no number of seconds, or ``before`` is not later than ``after``.
    """

    videos: tuple[str | Path, ...] = ()
    after: float | None = None
    before: float | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("after", self.after), ("before", self.before)):
            if value is not None and not (isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be seconds from the beginning of a video, got {value}")
        if self.before is not None and self.before <= (self.after or 0.0):
            raise ValueError(f"before must be later than after, got before={self.before:g}, after={self.after or 0:g}")
        check_tags(self.tags)

    def condition(self, columns: Iterable[str]) -> str:
        """As an SQL condition over the rows of a table; empty if all are wanted.

        Args:
            columns: Of the table; older ones have no tags.
        """
        parts = []
        if self.videos:
            parts.append("(" + " OR ".join(map(_is_below, self.videos)) + ")")
        if self.after is not None:
            parts.append(f"`end` > {self.after!r}")
        if self.before is not None:
            parts.append(f"start < {self.before!r}")
        if self.tags:
            has_tags = "tags" in columns
            parts += [f"array_has(tags, {quoted(tag)})" for tag in self.tags] if has_tags else ["false"]
        return " AND ".join(parts)


def check_tags(tags: Sequence[str]) -> None:
    """Refuses tags that could not be told apart or typed again.

    Raises:
        ValueError: Naming the tag.
    """
    for tag in tags:
        if not tag or tag != tag.strip() or not tag.isprintable():
            raise ValueError(f"{tag!r} is no tag; a tag is a text of printable characters without spaces around it")


def is_of(sources: Iterable[str]) -> str:
    """The SQL condition that a row is of one of these files."""
    return f"source IN ({', '.join(map(quoted, dict.fromkeys(sources)))})"


def quoted(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def _is_below(path: str | Path) -> str:
    """The SQL condition that a row is of this file or object, or of one in this folder or below this address."""
    separator = "/" if is_address(path) else os.sep
    resolved = source_name(path).rstrip(separator) or separator
    inside = resolved.rstrip(separator) + separator
    return f"(source = {quoted(resolved)} OR starts_with(source, {quoted(inside)}))"
