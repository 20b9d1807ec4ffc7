"""A progress bar with running scores; a line every half minute where there is no terminal.

Neither is shown where the log is held to errors, as by ``marc eval --quiet``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from marc.evaluation.runner import Row

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0


class RunningScore:
    """Mean strict score and number of failures of the rows so far."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.answered = self.failed = 0
        self.total = 0.0
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Counts one more row."""
        if row["status"] == "ok":
            self.answered += 1
            self.total += row["strict"]
        else:
            self.failed += 1

    def __str__(self) -> str:
        score = f"{100 * self.total / self.answered:.2f}" if self.answered else "-"
        return f"score {score}, {self.failed} failed"


@contextmanager
def progress(console: Console, name: str, rows: Iterable[Row], total: int) -> Iterator[Callable[[Row], None]]:
    """Shows how far a process is.

    Args:
        console: Where to show it.
        name: What is running.
        rows: Rows that are there already.
        total: Number of rows at the end.

    Yields:
        A function to call with every new row.
    """
    from rich.markup import escape
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    is_quiet = not logger.isEnabledFor(logging.WARNING)
    running = RunningScore(rows)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=is_quiet or not console.is_terminal) as bar:
        task = bar.add_task(escape(name), total=total, completed=running.answered + running.failed)
        last_line = time.monotonic()

        def on_row(row: Row) -> None:
            nonlocal last_line
            running.add(row)
            bar.update(task, advance=1, description=escape(f"{name} ({running})"))
            if not (is_quiet or console.is_terminal) and time.monotonic() - last_line > SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                done = running.answered + running.failed
                console.print(f"{name}: {done}/{total} ({running})", highlight=False, markup=False)

        yield on_row
