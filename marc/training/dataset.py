"""From rows to the data sets that the trainers take: prompts hold paths, never pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from marc.data.prompts import chat_messages, render_question
from marc.data.rows import TrainingRow, first_few

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


def to_videos(rows: Sequence[TrainingRow], root: str | Path) -> Dataset:
    """The columns ``prompt`` and ``problem_id``, one row per video: the first that is about it.

    Args:
        rows: The questions; those about images and texts are left out.
        root: The data set's folder, to which paths are relative.

    Raises:
        ValueError: If no row is about a video.
    """
    first: dict[tuple[str | None, tuple[float, ...] | None], TrainingRow] = {}
    for row in rows:
        if row.data_type == "video":
            first.setdefault((row.path, row.cuts), row)
    if not first:
        raise ValueError("there are no videos to train on")
    examples = [to_example(row, root) for row in first.values()]
    return Dataset.from_list([{name: row[name] for name in ("prompt", "problem_id")} for row in examples])


def to_supervised(
    rows: Sequence[TrainingRow],
    root: str | Path,
    *,
    style: str = STYLE,
    reasoning: bool = True,
    questions_per_video: int = 1,
) -> Dataset:
    """The column ``questions``: one item per video (or image, or text) with up to so many questions about it.

    Args:
        rows: The questions, in any order; those about the same file are put together.
        root: The data set's folder, to which paths are relative.
        style: One of `marc.data.prompts.style_names`.
        reasoning: Whether the model is to say a row's ``process`` before its answer.
        questions_per_video: Most questions of an item; more become further items.

    Raises:
        ValueError: If there are no rows, the style is unknown, or a row has no reasoning.
    """
    if not rows or questions_per_video < 1:
        raise ValueError(f"need rows and questions_per_video >= 1, got {len(rows)} rows and {questions_per_video}")
    if reasoning and (missing := [row.problem_id for row in rows if row.process is None]):
        raise ValueError(
            f"{len(missing)} rows have no reasoning ('process'): problem_id {first_few(missing)}; use rows of "
            "Video-R1-COT, or train on answers alone (reasoning: false)"
        )
    items: list[list[dict[str, Any]]] = []
    open_items: dict[tuple[str | None, tuple[float, ...] | None], list[dict[str, Any]]] = {}
    for row in rows:
        key = (row.path, row.cuts)
        if row.path is None or len(open_items.get(key, ())) in (0, questions_per_video):
            open_items[key] = []
            items.append(open_items[key])
        example = to_example(row, root, style=style)
        answer = completion(row, reasoning=reasoning)
        open_items[key].append(
            {"prompt": example["prompt"], "completion": answer, "problem_id": example["problem_id"]}
        )
    return Dataset.from_list([{"questions": item} for item in items])


def completion(row: TrainingRow, *, reasoning: bool) -> str:
    """What a row's model should say: ``<think>…</think><answer>…</answer>``, the first part only if asked for."""
    tagged = row.solution if row.solution.lstrip().startswith("<answer>") else f"<answer>{row.solution}</answer>"
    return f"{row.process}{tagged}" if reasoning else tagged
