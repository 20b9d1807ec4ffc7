"""Answer first: a model answers in bare words, and thinks only where it is unsure.

Reasoning costs most of what an answer costs once the video is one frame's worth of tokens. So the bare answer is asked
for first, greedily. Its probability is the product of the probabilities that the model gave its tokens at temperature
1, the one that ends it included: that of drawing this answer and no other. The tag that every bare answer begins with
is given, not generated. Where the probability reaches a threshold, the answer stands; elsewhere the question is asked
again in the prompt that asks to think. The product only falls, so that a bare answer can be given up at the token by
which it is too small. docs/evaluation.md says what all that gains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

BEGINNING = "<answer>"
"""What a bare answer begins with."""
_ANSWERS = ("A", "b", "The", "yes", " no", "3", "-", "\n")
"""Beginnings of answers, of which some may go together with the tag's last sign in one token."""


@dataclass(frozen=True)
class GreedyOutput:
    """An output of likeliest tokens, or the beginning of one that was given up.

    Attributes:
        tokens: Token ids, the one that ends it included.
        logprobs: Natural logarithms of the probabilities of the likeliest tokens, as many.
    """

    tokens: Sequence[int]
    logprobs: Sequence[float]

    @property
    def probability(self) -> float:
        """See `probability_of`."""
        return probability_of(self.logprobs)


def probability_of(logprobs: Sequence[float]) -> float:
    """The product of tokens' probabilities, ``exp(sum(log p))``, in [0, 1]."""
    return math.exp(math.fsum(logprobs))


@dataclass(frozen=True)
class Reply:
    """What a question came to.

    Attributes:
        tokens: Token ids of the output that counts, as they were generated.
        generated: How many were generated in all.
        probability: Of the bare answer; None: it was not asked for.
        has_thought: Whether the output that counts is that of thinking; None: likewise.
        given: Token ids that stood before these, see `beginning`.
    """

    tokens: Sequence[int]
    generated: int
    probability: float | None = None
    has_thought: bool | None = None
    given: Sequence[int] = ()

    @property
    def whole(self) -> list[int]:
        """The output that counts."""
        return [*self.given, *self.tokens]

    @classmethod
    def asked_once(cls, tokens: Sequence[int]) -> Reply:
        """The reply to a question of which no bare answer was asked."""
        return cls(tokens, len(tokens))


def beginning(tokenizer: Any) -> tuple[int, ...]:
    """The token ids with which every bare answer begins in its tag, whatever it is.

    Where a tokenizer may join the tag's last sign with the answer's first, it is left for the model to say.
    """
    whole = [tokenizer(BEGINNING + answer, add_special_tokens=False)["input_ids"] for answer in _ANSWERS]
    alike = takewhile(lambda ids: len(set(ids)) == 1, zip(*whole, strict=False))
    return tuple(ids[0] for ids in alike)


def think_where_unsure(
    bare: Sequence[GreedyOutput],
    threshold: float,
    *,
    given: Sequence[int] = (),
    accept: Callable[[int], object],
    think: Callable[[Sequence[int]], Sequence[Sequence[int]]],
) -> list[Reply]:
    """Decides which bare answers count, and has the other questions thought about.

    Args:
        bare: The bare answer to each question.
        threshold: Least probability of one that counts.
        given: Token ids that stood before each, see `beginning`.
        accept: Is told the number of each question whose bare answer counts, once nothing can fail any more.
        think: Gives the outputs of the questions of these numbers, asked to think; not called if there are none.

    Returns:
        One reply for each question.
    """
    sure = [output.probability >= threshold for output in bare]
    unsure = [row for row, is_sure in enumerate(sure) if not is_sure]
    thought = dict(zip(unsure, think(unsure), strict=True)) if unsure else {}
    for row in (row for row, is_sure in enumerate(sure) if is_sure):
        accept(row)
    replies = []
    for row, output in enumerate(bare):
        tokens = thought.get(row, output.tokens)
        generated = len(output.tokens) + (len(tokens) if row in thought else 0)
        replies.append(Reply(tokens, generated, output.probability, row in thought, () if row in thought else given))
    return replies
