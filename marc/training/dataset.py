"""From rows to the data set that the trainers take: prompts hold paths, never pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from marc.data.prompts import chat_messages, render_question
from marc.data.rows import TrainingRow

STYLE = "video-r1-train"


def to_dataset(rows: Sequence[TrainingRow], root: str | Path, *, style: str = STYLE) -> Dataset:
    """The columns ``prompt``, ``solution``, ``problem_type``, ``problem_id`` and ``a_full``, one row per question.

    Args:
        rows: The questions.
        root: The data set's folder, to which paths are relative.
        style: One of `marc.data.prompts.style_names`.

    Raises:
        ValueError: If there are no rows, or the style is unknown.
    """
    if not rows:
        raise ValueError("there are no rows to train on")
    return Dataset.from_list([to_example(row, root, style=style) for row in rows])


def to_example(row: TrainingRow, root: str | Path, *, style: str = STYLE) -> dict[str, Any]:
    """One row of `to_dataset`; ``a_full`` is None for images and texts, which know no retention."""
    text = render_question(row.problem, problem_type=row.problem_type, options=row.options, style=style)
    file = row.file(root)
    prompt = chat_messages(text, data_type=row.data_type, path=None if file is None else str(file))
    if row.cuts is not None:
        prompt[0]["content"][0]["cuts"] = list(row.cuts)
    return {
        "prompt": prompt,
        "solution": row.solution,
        "problem_type": row.problem_type,
        "problem_id": row.problem_id,
        "a_full": row.a_full if row.data_type == "video" else None,
    }
