"""Another Python process that imports from where this one does, whatever stands in the current folder."""

from __future__ import annotations

import os
import sys


def python_running(code: str, *arguments: str) -> list[str]:
    """The command that runs some code, with this process's ``sys.path``.

    Args:
        code: Python, in one line.
        arguments: Its ``sys.argv[1:]``.
    """
    path = [folder or os.getcwd() for folder in sys.path]
    return [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}; {code}", *arguments]
