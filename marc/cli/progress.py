"""A progress bar for one piece of long work, on the error stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn


@contextmanager
def share_bar(title: str) -> Iterator[Callable[[float], None]]:
    """Gives a function that is told what share of the work is done; the bar appears when it is first called."""
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=1.0, visible=False)
        yield lambda share: bar.update(task, completed=share, visible=True)
