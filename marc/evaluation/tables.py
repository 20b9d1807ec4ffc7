"""Tables of text, shown in the terminal or written as Markdown."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from marc.evaluation.statistics import Estimate
from marc.terminal import harmless

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass
class Table:
    """A title, column names and rows of text.

    Attributes:
        title: What the table shows.
        columns: Names of the columns.
        rows: Cells, as many per row as there are columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Appends a row."""
        assert len(cells) == len(self.columns), (cells, self.columns)
        self.rows.append(cells)

    def markdown(self) -> str:
        """The table as Markdown, its title as a line of bold text."""
        lines = [self.columns, tuple("---" for _ in self.columns), *self.rows]
        escaped = ("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)
        return f"**{self.title}**\n\n" + "\n".join(escaped)

    def rich(self) -> RichTable:
        """The table for a rich console."""
        from rich.markup import escape
        from rich.table import Table as RichTable

        table = RichTable(*self.columns, title=escape(harmless(self.title)), title_justify="left")
        for row in self.rows:
            table.add_row(*(escape(harmless(cell)) for cell in row))
        return table


def percent(value: float) -> str:
    """A score in ``[0, 1]`` as the papers print it: ``0.4221`` is ``42.21``."""
    return "" if math.isnan(value) else f"{100 * value:.2f}"


def interval(estimate: Estimate, *, signed: bool = False, digits: int = 2) -> str:
    """A mean and its interval in percent: ``42.21 [40.10, 44.30]``."""
    if math.isnan(estimate.mean):
        return ""
    form = f"{'+' if signed else ''}.{digits}f"
    mean, low, high = (format(100 * value, form) for value in (estimate.mean, estimate.low, estimate.high))
    return f"{mean} [{low}, {high}]"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
