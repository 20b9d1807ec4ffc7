"""Rows of Video-R1's training files as published: Video-R1-260k (questions), Video-R1-COT-165k (with reasoning).

A row asks one question about one video or image. A file is a JSON list, a ``.jsonl``, a ``.parquet``, or a manifest
of `marc.data.sampling` (its ``rows``). Two columns are ours: ``a_full``, the full-frame teacher's
accuracy on the row (C-GRPO), and ``cuts``, the seconds at which a new event of the video begins.

What is wrong with a row is said with its file, its index and its ``problem_id``; nothing is repaired silently.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from marc.extras import extra
from marc.grading import PROBLEM_TYPES

DATA_TYPES = ("video", "image", "text")


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
            raise ValueError(f"data_type must be one of {', '.join(DATA_TYPES)}, got {self.data_type!r}")
        if self.problem_type not in PROBLEM_TYPES:
            raise ValueError(f"problem_type must be one of {', '.join(PROBLEM_TYPES)}, got {self.problem_type!r}")
        if not self.problem.strip():
            raise ValueError("the problem is empty")
        if not self.solution.strip():
            raise ValueError("the solution is empty")
        if (self.path is None) != (self.data_type == "text"):
            raise ValueError(f"a {self.data_type} row {'has no' if self.path is None else 'must not have a'} path")
        if self.a_full is not None and not 0 <= self.a_full <= 1:
            raise ValueError(f"a_full must lie in [0, 1], got {self.a_full}")
        if self.cuts is not None and not all(a < b for a, b in zip((0.0, *self.cuts), self.cuts, strict=False)):
            raise ValueError(f"cuts must be positive and increasing, got {list(self.cuts)}")

    @property
    def id(self) -> str:
        """What the row is called, here its ``problem_id``."""
        return self.problem_id

    def file(self, root: str | Path) -> Path | None:
        """Where the row's video or image lies below the data set's folder."""
        return None if self.path is None else Path(root) / self.path

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON, without the columns that it does not have."""
        return {name: value for name, value in asdict(self).items() if value not in (None, ())}


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
    for name in ("problem", "problem_type", "solution"):
        if not isinstance(values.get(name), str):
            raise ValueError(f"the column {name!r} must be a text, got {values.get(name)!r}")
    options, cuts = values.get("options") or (), values.get("cuts")
    if not isinstance(options, list | tuple) or not all(isinstance(option, str) for option in options):
        raise ValueError(f"the column 'options' must be a list of texts, got {options!r}")
    if cuts is not None and not (isinstance(cuts, list | tuple) and all(map(_is_number, cuts))):
        raise ValueError(f"the column 'cuts' must be a list of numbers, got {cuts!r}")
    path = values.get("path") or None
    if path is not None and not isinstance(path, str):
        raise ValueError(f"the column 'path' must be a text, got {path!r}")
    return TrainingRow(
        problem_id=str(values.get("problem_id", "?")),
        problem=values["problem"],
        problem_type=values["problem_type"],
        solution=values["solution"],
        data_type=values.get("data_type") or "video",
        path=path,
        options=tuple(options),
        data_source=str(values.get("data_source") or ""),
        process=values.get("process") or None,
        a_full=_number(values, "a_full"),
        cuts=None if cuts is None else tuple(float(cut) for cut in cuts),
    )


def parse_rows(values: Iterable[Any]) -> tuple[list[TrainingRow], list[BadRow]]:
    """Reads rows; those that cannot be used come back apart, each with its reason."""
    rows, bad = [], []
    for index, value in enumerate(values):
        if not isinstance(value, Mapping):
            bad.append(BadRow(index, "?", f"a row must be an object, got {type(value).__name__}"))
            continue
        try:
            rows.append(parse_row(value))
        except ValueError as error:
            bad.append(BadRow(index, str(value.get("problem_id", "?")), str(error)))
    return rows, bad


def load_rows(path: str | Path) -> list[Any]:
    """The raw rows of a ``.json`` (a list, or an object with ``rows``), ``.jsonl`` or ``.parquet`` file.

    Raises:
        ValueError: If there is no such file, or it is not what its name says.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file of rows")
    if file.suffix == ".parquet":
        with extra("eval"):
            from pyarrow import parquet

        table: list[Any] = parquet.read_table(file).to_pylist()
        return table
    text = file.read_text(encoding="utf-8")
    try:
        if file.suffix == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: not valid JSON ({error})") from error
    rows = values.get("rows") if isinstance(values, dict) else values
    if not isinstance(rows, list):
        raise ValueError(f"{file}: expected a list of rows, or a manifest with 'rows'")
    return rows


def read_rows(path: str | Path) -> list[TrainingRow]:
    """Reads a file all of whose rows can be used.

    Raises:
        ValueError: If any row cannot; the message names the first ones. ``marc data check`` writes a clean file.
    """
    rows, bad = parse_rows(load_rows(path))
    if bad:
        raise ValueError(f"{path}: {len(bad)} unusable rows; {first_few(bad)}; `marc data check` writes a clean file")
    return rows


def first_few(items: Sequence[object], count: int = 5) -> str:
    """The first items in one line, and how many more there are."""
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return "; ".join(map(str, items[:count])) + more


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    if value is None:
        return None
    if not _is_number(value):
        raise ValueError(f"the column {name!r} must be a number, got {value!r}")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
