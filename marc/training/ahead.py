"""The files of the next rows are read while a step computes."""

from __future__ import annotations

from typing import Any

from marc.training.inputs import visual_sources
from marc.training.reader import VisualReader, VisualSource


class ReadingAhead:
    """A collator that leaves rows as they are, and has what they name read while the rows before them are trained on.

    Data loaders are asked for a batch before the last one is worked on. Where rows come several times in a row, they
    are read once.

    Args:
        reader: Reads.
    """

    def __init__(self, reader: VisualReader) -> None:
        self._reader = reader
        self._last: list[VisualSource] = []

    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Announces what the rows name."""
        sources = [source for row in rows for source in visual_sources(row["prompt"])]
        if sources != self._last:
            self._reader.read_ahead(sources)
            self._last = sources
        return rows
