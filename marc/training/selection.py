"""A reward on the selection: how much of their videos a step's rows show is an action, and what it brought is learned.

A small policy, a softmax over the names of ``budgets``, takes the place of their fixed shares, from which it begins.
Once a generation's answers are rewarded, it learns by REINFORCE with a moving baseline:

    r = mean reward  -  cost * (visual tokens read / visual tokens before)
    theta_k  +=  rate * (r - baseline) * (1[k was drawn] - p_k)

The rewards are those of all processes, so that each has the same policy; it is part of a checkpoint. The policy knows
nothing of the question: it learns one distribution for a data set, not a budget for each row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from marc.inference.video_input import VideoInput
from marc.training.budgets import BudgetMix

BASELINE_RATE = 0.1
"""Part of the way that the baseline goes towards each new value."""


class BudgetPolicy:
    """The distribution that steps draw their budget from, as it is learned.

    Args:
        mix: The budgets, and the probabilities that the policy begins with.
        rate: Step size of its preferences.
        cost: What reading every token of a video costs.
    """

    def __init__(self, mix: BudgetMix, rate: float, cost: float) -> None:
        self._preferences = {name: math.log(share) for name, share in mix.shares.items() if share > 0}
        self._rate, self._cost = rate, cost
        self._baseline: float | None = None

    @property
    def mix(self) -> BudgetMix:
        """The distribution as it is now; its shares sum to 1."""
        largest = max(self._preferences.values())
        weights = {name: math.exp(value - largest) for name, value in self._preferences.items()}
        total = sum(weights.values())
        return BudgetMix({name: weight / total for name, weight in weights.items()})

    def learn(self, name: str, reward: float, tokens: float) -> float:
        """Takes note of what a budget brought; of the first one alone nothing is learned.

        Args:
            name: The budget that was drawn.
            reward: Mean reward of the answers.
            tokens: Part of the visual tokens that were read, in ``[0, 1]``.

        Returns:
            The reward less the cost.
        """
        value = reward - self._cost * tokens
        if self._baseline is None:
            self._baseline = value
        advantage = value - self._baseline
        for each, share in self.mix.shares.items():
            self._preferences[each] += self._rate * advantage * ((each == name) - share)
        self._baseline += BASELINE_RATE * advantage
        return value

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        return {"preferences": dict(self._preferences), "baseline": self._baseline}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what a checkpoint kept.

        Raises:
            ValueError: If it is of other budgets.
        """
        if set(state["preferences"]) != set(self._preferences):
            raise ValueError(
                f"budgets: the checkpoint's selection is of {', '.join(state['preferences'])}, not of "
                f"{', '.join(self._preferences)}"
            )
        self._preferences, self._baseline = dict(state["preferences"]), state["baseline"]


def video_tokens(rows: Iterable[Iterable[VideoInput]]) -> tuple[int, int]:
    """Visual tokens of the videos of some rows: those that are read, and those that there were."""
    videos = [each for row in rows for each in row if each.kind == "video"]
    return sum(each.tokens for each in videos), sum(each.patches.tokens for each in videos)
