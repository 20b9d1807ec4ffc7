"""One question of a benchmark as the runner sees it, and the readers of annotation files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """One question about one video.

    Attributes:
        id: Unique in its benchmark and stable: ``<benchmark>/<index of the row>``.
        path: File of the video or image.
        question: The bare question, which retrieval embeds.
        prompt: The rendered text that follows the video.
        problem_type: One of `marc.grading.PROBLEM_TYPES`.
        solution: The gold answer, with or without tags.
        data_type: ``"video"`` or ``"image"``.
        options: The options as annotated.
        rule: Name of the official scoring rule (`marc.evaluation.official.RULES`); ignored by the other protocols.
        groups: What the report breaks down by, such as ``{"task": "object_counting"}``.
    """

    id: str
    path: str
    question: str
    prompt: str
    problem_type: str
    solution: str
    data_type: str = "video"
    options: tuple[str, ...] = ()
    rule: str = "grade"
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def prompt_hash(self) -> str:
        """First 16 hexadecimal digits of the prompt's SHA-256."""
        return hashlib.sha256(self.prompt.encode()).hexdigest()[:16]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``.json`` (a list), ``.jsonl`` or ``.parquet`` file.

    Raises:
        ValueError: If the file is missing, of another type, or not what its name says.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such annotation file")
    if path.suffix == ".parquet":
        from pyarrow import parquet

        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return rows
    text = path.read_text(encoding="utf-8")
    try:
        rows = (
            [json.loads(line) for line in text.split("\n") if line.strip()]
            if path.suffix == ".jsonl"
            else json.loads(text)
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: expected a list of rows (objects)")
    return rows


def require(row: Row, name: str, where: str) -> Any:
    """A column of a row.

    Raises:
        ValueError: If the row lacks it; the message names the row, the column and the columns that are there.
    """
    if row.get(name) is None:
        raise ValueError(f"{where}: the row has no {name!r}; it has {', '.join(sorted(row))}")
    return row[name]
