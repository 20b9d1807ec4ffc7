"""The format reward: 1 for ``<think>...</think><answer>...</answer>`` and nothing around it (Video-R1's rule)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from marc.rewards.accuracy import Completion, completion_text

_OPENING, _CLOSING = "<think>", "</answer>"
_MIDDLE = re.compile(r"</think>\s*<answer>")


def format_reward(
    completions: Sequence[Completion],
    solution: Sequence[str] | None = None,
    problem_type: Sequence[str] | None = None,
    **columns: object,
) -> list[float]:
    """1.0 where the whole completion matches ``<think>.*?</think>\\s*<answer>.*?</answer>``, else 0.0.

    Nothing may stand before, between or after the two blocks but white space between them; further tags inside the
    blocks are allowed, as in Video-R1's expression.

    Args:
        completions: Texts, or chats whose last message is the completion.
        solution: Unused, here so that all rewards are called alike.
        problem_type: Unused, likewise.
        columns: The data set's other columns; unused.
    """
    return [float(has_format(completion_text(completion))) for completion in completions]


def has_format(text: str) -> bool:
    """Whether a text has the format; in linear time, where the expression backtracks."""
    whole = text.startswith(_OPENING) and text.endswith(_CLOSING)
    return whole and _MIDDLE.search(text, len(_OPENING), len(text) - len(_CLOSING)) is not None
