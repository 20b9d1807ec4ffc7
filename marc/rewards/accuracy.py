"""The accuracy reward: the evaluation's grader applied to completions, as a TRL reward function (Video-R1's rules)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from marc.grading import grade

Completion = str | Sequence[dict[str, Any]]


def accuracy_reward(
    completions: Sequence[Completion],
    solution: Sequence[str],
    problem_type: Sequence[str],
    *,
    strict: bool = True,
    **columns: object,
) -> list[float]:
    """Accuracy of each completion, ``r = grade(completion, solution, problem_type, protocol="reward")`` in ``[0, 1]``.

    Every row is graded by its own problem type (Video-R1 grades a batch by the type of its first row).

    Args:
        completions: Texts, or chats whose last message is the completion.
        solution: Gold answers, with or without ``<answer>`` tags.
        problem_type: One of `marc.grading.PROBLEM_TYPES` per row.
        strict: Video-R1's reward to the letter; False also accepts ``B.``, ``(B)``, ``1,000`` and the like.
        columns: The data set's other columns, which TRL passes along; unused.

    Raises:
        ValueError: If a problem type is unknown, or the lengths differ.
    """
    rows = zip(completions, solution, problem_type, strict=True)
    return [grade(completion_text(text), gold, kind, protocol="reward", strict=strict) for text, gold, kind in rows]


def completion_text(completion: Completion) -> str:
    """The text of a completion that is a string or a chat, whose content may be a string or a list of typed parts."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)
