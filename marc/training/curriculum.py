"""A curriculum by the teacher's margin: prompts come up more often the further the student is behind its teacher.

The margin of a prompt is ``max(0, a_full - a)``, with ``a`` the mean accuracy of the student's answers when the prompt
last came up, and of all prompts that did where it has not yet. A prompt's probability is

    p = (1 - share) / P  +  share * margin / (sum of all margins)

so that none is lost. A prompt without ``a_full`` (images, texts) counts as the average one and keeps the share that it
would have without a curriculum.

What is drawn follows from the seed, the number of the generation and the accuracies so far. These are the same in
every process and part of a checkpoint, so that a resumed run draws the same prompts.

Shapes: P prompts of the data set, N answers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class MarginCurriculum:
    """Which prompts come up next.

    Args:
        a_full: The teacher's accuracy on each prompt; None where there is no teacher.
        share: Part of the probability that follows the margins, at least 0 and below 1; the rest is equal for all.
        seed: Of the run.

    Raises:
        ValueError: If no prompt has a teacher's accuracy.
    """

    def __init__(self, a_full: Sequence[float | None], share: float, seed: int) -> None:
        self._a_full_P = np.array([math.nan if value is None else value for value in a_full], dtype=np.float64)
        if np.isnan(self._a_full_P).all():
            raise ValueError(
                "curriculum needs the teacher's accuracy in a column 'a_full', which no row has: `marc data teacher` "
                "writes it"
            )
        self._share, self._seed = share, seed
        self._generation = 0
        self._student: dict[int, float] = {}

    def margins(self) -> NDArray[np.float64]:
        """Of all prompts, ``[P]``."""
        known = list(self._student.values())
        student_P = np.full(len(self._a_full_P), np.mean(known) if known else 0.0)
        student_P[list(self._student)] = known
        margins_P = np.maximum(0.0, self._a_full_P - student_P)
        margins_P[np.isnan(margins_P)] = np.nanmean(margins_P)
        return margins_P

    def probabilities(self) -> NDArray[np.float64]:
        """Of all prompts, ``[P]``; they sum to 1."""
        margins_P, count = self.margins(), len(self._a_full_P)
        total = margins_P.sum()
        by_margin_P = margins_P / total if total > 0 else np.full(count, 1 / count)
        return (1 - self._share) / count + self._share * by_margin_P

    def draw(self, count: int, *key: object) -> list[int]:
        """Numbers of prompts, each once where there are enough.

        Args:
            count: How many.
            *key: What the draw follows from beside the seed and the accuracies so far.
        """
        state = random.Random("/".join(map(str, ("curriculum", self._seed, *key)))).getrandbits(64)
        drawn = np.random.default_rng(state)
        size, probabilities_P = len(self._a_full_P), self.probabilities()
        return drawn.choice(size, count, replace=count > size, p=probabilities_P).tolist()

    def upcoming(self, count: int) -> list[int]:
        """Numbers of the next generation's prompts, which change when something is learned or `begin` is called."""
        return self.draw(count, "generation", self._generation)

    def begin(self) -> None:
        """The upcoming prompts are being answered."""
        self._generation += 1

    def learn(self, numbers: Sequence[int], accuracies: Sequence[float]) -> None:
        """Takes note of answers.

        Args:
            numbers: The prompt of each answer, N.
            accuracies: Of each answer, N; NaN where it could not be graded. A prompt of which none could be, such as
                one whose video cannot be read, has no margin from then on.
        """
        graded: dict[int, list[float]] = {}
        for number, accuracy in zip(numbers, accuracies, strict=True):
            graded.setdefault(number, []).extend([] if math.isnan(accuracy) else [accuracy])
        for number, values in graded.items():
            self._student[number] = sum(values) / len(values) if values else 1.0

    @property
    def seen(self) -> float:
        """Part of the prompts that have come up."""
        return len(self._student) / len(self._a_full_P)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        student = {str(number): value for number, value in self._student.items()}
        return {"prompts": len(self._a_full_P), "generation": self._generation, "student": student}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what a checkpoint kept.

        Raises:
            ValueError: If it is of another number of prompts.
        """
        if state["prompts"] != len(self._a_full_P):
            raise ValueError(
                f"curriculum: the checkpoint is of {state['prompts']} rows, the data set has {len(self._a_full_P)}"
            )
        self._generation = state["generation"]
        self._student = {int(number): value for number, value in state["student"].items()}
