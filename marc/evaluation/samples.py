"""One question of a benchmark as the runner sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from marc.data.prompts import render_question
from marc.io import sha256_of

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """One question about one video.

    Attributes:
        id: Unique in its benchmark and stable: ``<benchmark>/<index of the row>``.
        path: File of the video or image, or a folder of frames.
        question: The bare question, which retrieval embeds.
        prompt: The rendered text that follows the video.
        problem_type: One of `marc.grading.PROBLEM_TYPES`.
        solution: The gold answer, with or without tags.
        data_type: ``"video"``, ``"image"`` or ``"frame"``, a folder of frames.
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
        return sha256_of(self.prompt)[:16]

    def question_in(self, style: str) -> str:
        """The question, its options included, in one of the styles of `marc.data.prompts`."""
        return render_question(self.question, problem_type=self.problem_type, options=self.options, style=style)


def require(row: Row, name: str, where: str) -> Any:
    """A column of a row.

    Raises:
        ValueError: If the row lacks it; the message names the row, the column and the columns that are there.
    """
    if row.get(name) is None:
        raise ValueError(f"{where}: the row has no {name!r}; it has {', '.join(sorted(row))}")
    return row[name]


def require_text(row: Row, name: str, where: str) -> str:
    """A column of a row that is a text.

    Raises:
        ValueError: If the row lacks it, or it is none, or holds half a character.
    """
    return _text(require(row, name, where), name, where)


def texts(row: Row, name: str, where: str) -> tuple[str, ...]:
    """A column of a row that is a list of texts; empty if the row lacks it.

    Raises:
        ValueError: If it is none.
    """
    values = row.get(name)
    values = () if values is None else values
    if not isinstance(values, list | tuple):
        raise ValueError(f"{where}: {name!r} must be a list of texts, got {type(values).__name__}")
    return tuple(_text(value, name, where) for value in values)


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: {name!r} must be a text, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}: {name!r} holds half a character") from error
    return value
