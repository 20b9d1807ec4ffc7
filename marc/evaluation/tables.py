"""Tables of text, shown in the terminal or written as Markdown."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from marc.evaluation.statistics import Estimate
from marc.terminal import harmless

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable


_BORDER = 3
"""Characters of a line that a column takes beside its text."""


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

    def plain(self) -> str:
        """The table for a narrow place: a paragraph for each row, a line for each cell that is not empty."""
        width = max(map(len, self.columns), default=0)
        named = (
            [f"{name:{width}}  {' '.join(cell.split())}" for name, cell in zip(self.columns, row, strict=True) if cell]
            for row in self.rows
        )
        return "\n\n".join([self.title, *("\n".join(lines) for lines in named)])

    def show(self, console: Console) -> None:
        """Prints the table: as Markdown where that is no terminal, as paragraphs where a terminal is too narrow."""
        widths = self._widths(console.width) if console.is_terminal else None
        if widths:
            table = self.rich()
            for column, width in zip(table.columns, widths, strict=True):
                column.width = width
            console.print(table)
        else:
            text = self.plain() if console.is_terminal else self.markdown()
            console.print(f"{text}\n", markup=False, highlight=False, emoji=False, soft_wrap=True)

    def _widths(self, room: int) -> list[int] | None:
        """Widths of the columns that break no word in a terminal so wide; None if it is too narrow for that."""
        from rich.cells import cell_len

        texts = [[harmless(cell) for cell in column] for column in zip(self.columns, *self.rows, strict=True)]
        least = [max(cell_len(word) for text in column for word in text.split() or [""]) for column in texts]
        wanted = [max(cell_len(text) - low for text in column) for column, low in zip(texts, least, strict=True)]
        spare = room - sum(least) - (len(least) * _BORDER + 1)
        share = min(1.0, spare / max(1, sum(wanted)))
        return None if spare < 0 else [low + int(more * share) for low, more in zip(least, wanted, strict=True)]


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
