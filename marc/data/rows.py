"""Rows of Video-R1's training files as published: Video-R1-260k (questions), Video-R1-COT-165k (with reasoning).

A row asks one question about one video or image. A file is a JSON list, a ``.jsonl``, a ``.parquet``, or a manifest
of `marc.data.sampling` (its ``rows``). Two columns are ours: ``a_full``, the full-frame teacher's
accuracy on the row (C-GRPO), and ``cuts``, the seconds at which a new event of the video begins.

What is wrong with a row is said with its file, its index and its ``problem_id``; nothing is repaired silently.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from reprlib import Repr
from typing import Any

from marc.data.containment import check_inside
from marc.data.row_files import UnreadableRow, raw_rows
from marc.grading import PROBLEM_TYPES, gold_answer, known_problem_type

DATA_TYPES = ("video", "image", "text")
_TEXTS = ("problem", "problem_type", "solution", "data_type", "data_source", "process")

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 120


@dataclass(frozen=True)
class TrainingRow:
    """One question with its answer.

    Attributes:
        problem_id: As published; not unique across files.
        problem: The question.
        problem_type: One of `marc.grading.PROBLEM_TYPES`.
        solution: The answer, with or without ``<answer>`` tags.
        data_type: ``"video"``, ``"image"`` or ``"text"``.
        path: The file as written in the row, relative to the data set's folder; None for text.
        options: Options of a multiple-choice question, as written.
        data_source: The data set that the row comes from.
        process: Reasoning in ``<think>`` tags, for supervised training.
        a_full: The full-frame teacher's accuracy in ``[0, 1]``; None where there is none.
        cuts: Increasing seconds at which the video's second and later events begin; None: not segmented.
    """

    problem_id: str
    problem: str
    problem_type: str
    solution: str
    data_type: str = "video"
    path: str | None = None
    options: tuple[str, ...] = ()
    data_source: str = ""
    process: str | None = None
    a_full: float | None = None
    cuts: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.data_type not in DATA_TYPES:
            raise ValueError(f"data_type must be one of {', '.join(DATA_TYPES)}, got {_SHORT.repr(self.data_type)}")
        if self.problem_type not in PROBLEM_TYPES:
            raise ValueError(
                f"problem_type must be one of {', '.join(PROBLEM_TYPES)}, got {_SHORT.repr(self.problem_type)}"
            )
        if not self.problem.strip():
            raise ValueError("the problem is empty")
        if not gold_answer(self.solution):
            raise ValueError("the solution is empty")
        if (self.path is None) != (self.data_type == "text"):
            raise ValueError(f"a {self.data_type} row {'has no' if self.path is None else 'must not have a'} path")
        if self.a_full is not None and not 0 <= self.a_full <= 1:
            raise ValueError(f"a_full must lie in [0, 1], got {self.a_full}")
        if self.cuts is not None and not all(a < b for a, b in zip((0.0, *self.cuts), self.cuts, strict=False)):
            raise ValueError(f"cuts must be positive and increasing, got {_SHORT.repr(list(self.cuts))}")

    @property
    def id(self) -> str:
        """What the row is called, here its ``problem_id``."""
        return self.problem_id

    def file(self, root: str | Path) -> Path | None:
        """Where the row's video or image lies below the data set's folder."""
        return None if self.path is None else Path(root) / self.path

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON, without the columns that it does not have; a video without inner cuts has none of them."""
        return {
            name: value
            for name, value in asdict(self).items()
            if value is not None and (value != () or name == "cuts")
        }


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used.

    Attributes:
        index: Its number in the file, from 0.
        problem_id: As published, or ``"?"``.
        problem: What is wrong with it.
    """

    index: int
    problem_id: str
    problem: str

    def __str__(self) -> str:
        return f"row {self.index} (problem_id {self.problem_id}): {self.problem}"


def parse_row(values: Mapping[str, Any]) -> TrainingRow:
    """Reads one row; columns that are not a `TrainingRow`'s are left out.

    Raises:
        ValueError: If a column is missing, of another type, or out of range; the message names it.
    """
    for name in _TEXTS:
        if name in ("problem", "problem_type", "solution") or values.get(name):
            _check_text(name, values.get(name))
    options, cuts = values.get("options") or (), values.get("cuts")
    if not isinstance(options, list | tuple):
        raise ValueError(f"the column 'options' must be a list of texts, got {_SHORT.repr(options)}")
    for option in options:
        _check_text("options", option)
    if cuts is not None and not (isinstance(cuts, list | tuple) and all(map(_is_number, cuts))):
        raise ValueError(f"the column 'cuts' must be a list of numbers, got {_SHORT.repr(cuts)}")
    path = values.get("path") or None
    if path is not None:
        _check_path(path)
    return TrainingRow(
        problem_id=_problem_id(values),
        problem=values["problem"],
        problem_type=known_problem_type(values["problem_type"]),
        solution=values["solution"],
        data_type=values.get("data_type") or "video",
        path=path,
        options=tuple(options),
        data_source=str(values.get("data_source") or ""),
        process=values.get("process") or None,
        a_full=_number(values, "a_full"),
        cuts=None if cuts is None else tuple(float(cut) for cut in cuts),
    )


def parse_each(values: Iterable[Any], folder: str | Path | None = None) -> Iterator[TrainingRow | BadRow]:
    """Reads rows one by one; for one that cannot be used, what is wrong with it.

    Args:
        values: As `marc.data.row_files.raw_rows` gives them.
        folder: Rows whose path leads out of this folder cannot be used; None: they can.
    """
    for index, value in enumerate(values):
        if isinstance(value, UnreadableRow):
            yield BadRow(index, "?", value.problem)
            continue
        if not isinstance(value, Mapping):
            yield BadRow(index, "?", f"a row must be an object, got {type(value).__name__}")
            continue
        try:
            row = parse_row(value)
            if folder is not None and row.path is not None:
                check_inside(row.path, folder)
            yield row
        except ValueError as error:
            yield BadRow(index, str(value.get("problem_id", "?"))[:80] if _has_id(value) else "?", str(error))


def parse_rows(values: Iterable[Any], folder: str | Path | None = None) -> tuple[list[TrainingRow], list[BadRow]]:
    """As `parse_each`, the rows and those that cannot be used apart."""
    rows: list[TrainingRow] = []
    bad: list[BadRow] = []
    for row in parse_each(values, folder):
        if isinstance(row, BadRow):
            bad.append(row)
        else:
            rows.append(row)
    return rows, bad


def read_rows(path: str | Path, folder: str | Path | None = None, *, allow_outside: bool = False) -> list[TrainingRow]:
    """Reads a file all of whose rows can be used.

    Args:
        path: The file.
        folder: The data set's; by default that of the file.
        allow_outside: Whether paths may lead out of it.

    Raises:
        ValueError: If any row cannot; the message names the first ones. ``marc data check`` writes a clean file.
    """
    inside = None if allow_outside else folder or Path(path).parent
    rows, bad = parse_rows(raw_rows(path), inside)
    if bad:
        raise ValueError(f"{path}: {len(bad)} unusable rows; {first_few(bad)}; `marc data check` writes a clean file")
    return rows


def first_few(items: Sequence[object], count: int = 5) -> str:
    """The first items in one line, and how many more there are."""
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return "; ".join(map(str, items[:count])) + more


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"the column {name!r} must be a text, got {_SHORT.repr(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the column {name!r} holds half a character ({_SHORT.repr(value)})") from error


def _check_path(value: Any) -> None:
    """Refuses what no file system has as a path."""
    if not isinstance(value, str):
        raise ValueError(f"the column 'path' must be a text, got {_SHORT.repr(value)}")
    try:
        possible = b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise ValueError(f"the column 'path' holds what no file name has: {_SHORT.repr(value)}")


def _has_id(values: Mapping[str, Any]) -> bool:
    return isinstance(values.get("problem_id", "?"), str | int | float)


def _problem_id(values: Mapping[str, Any]) -> str:
    if not _has_id(values):
        raise ValueError(
            f"the column 'problem_id' must be a text or a number, got {_SHORT.repr(values['problem_id'])}"
        )
    return str(values.get("problem_id", "?"))


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    if value is None:
        return None
    if not _is_number(value):
        raise ValueError(f"the column {name!r} must be a number, got {_SHORT.repr(value)}")
    return float(value)


def _is_number(value: Any) -> bool:
    """Whether it is a finite number that a float holds."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
