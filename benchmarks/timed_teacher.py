"""The child process of `benchmarks.teacher_speed`: ``marc data teacher`` with a clock on its questions.

    python benchmarks/timed_teacher.py RESULT CHECKOUT [arguments of marc data teacher]

writes to the file RESULT, as JSON, how long a checkout's questions took, its model and the libraries that grade being
loaded, and what was answered. It is started by its path and imports nothing of this project, so that the checkout that
is measured may be of any age.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil


def main() -> None:
    """Runs the command and writes its measurements."""
    result, checkout = Path(sys.argv[1]), Path(sys.argv[2])
    sys.path[0] = str(checkout)
    arguments = ["data", "teacher", *sys.argv[3:]]

    import marc

    if checkout not in Path(marc.__file__).parents:
        raise ImportError(f"{checkout} is to be measured, but Python finds {marc.__file__}")
    from marc.cli import app
    from marc.training import teacher

    measured: dict[str, Any] = {"answers": []}
    ask, grade = teacher.teacher_accuracies, teacher.accuracy_reward

    def graded(texts: list[str], *columns: Any) -> Any:
        measured["answers"].append(list(texts))
        return grade(texts, *columns)

    def timed(*rows: Any, **options: Any) -> Iterator[Any]:
        grade(["word"], ["<answer>word</answer>"], ["free-form"])
        worked, begun = _processor_seconds(), time.perf_counter()
        yield from ask(*rows, **options)
        measured["wall"] = time.perf_counter() - begun
        measured["processor"] = _processor_seconds() - worked

    for name, watched in {"teacher_accuracies": timed, "accuracy_reward": graded}.items():
        setattr(teacher, name, watched)
    try:
        app(arguments, standalone_mode=False)
    finally:
        result.write_text(json.dumps(measured), encoding="utf-8")


def _processor_seconds() -> float:
    """Of this process, and of its children, ended ones included."""
    own = psutil.Process().cpu_times()
    children = [each.cpu_times() for each in psutil.Process().children(recursive=True)]
    ended = own.children_user + own.children_system
    return sum(each.user + each.system for each in (own, *children)) + float(ended)


if __name__ == "__main__":
    main()
