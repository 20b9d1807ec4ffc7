"""Progress of long work, on the error stream; nothing of it with ``--quiet``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TimeElapsedColumn

from marc.cli.output import make_console
from marc.cli.verbosity import is_quiet


def progress_console() -> Console:
    """Where progress is shown."""
    return make_console(stderr=True, quiet=is_quiet())


@contextmanager
def share_bar(title: str) -> Iterator[Callable[[float], None]]:
    """Gives a function that is told what share of the work is done; the bar appears when it is first called."""
    bar = Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=progress_console())
    task = bar.add_task(escape(title), total=1.0)

    def show(share: float) -> None:
        bar.start()
        bar.update(task, completed=share)

    try:
        yield show
    finally:
        if bar.live.is_started:  # else it would end with an empty line
            bar.stop()
