"""Rewards by name, as recipes write them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from marc.rewards.accuracy import accuracy_reward
from marc.rewards.format import format_reward
from marc.rewards.judge import Judge, judge_reward

Reward = Callable[..., list[float | None]]
"""A TRL reward function: takes ``completions`` and the data set's columns by name, gives a reward for each."""

REWARDS: dict[str, Reward] = {  # the first two give no row None
    "accuracy": accuracy_reward,  # type: ignore[dict-item]
    "format": format_reward,  # type: ignore[dict-item]
    "judge": judge_reward,
}


def find_reward(name: str) -> Reward:
    """A reward function.

    Args:
        name: One of `REWARDS`, or ``package.module:function`` of a module that can be imported.

    Raises:
        ValueError: If there is none, or the environment names no judge where one is wanted.
    """
    if name == "judge":
        Judge.from_environment()
    if name in REWARDS:
        return REWARDS[name]
    module, colon, function = name.partition(":")
    if not colon or not module or not function:
        raise ValueError(f"rewards: {name!r} is neither one of {', '.join(REWARDS)} nor package.module:function")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"rewards: {name!r} cannot be imported ({error})") from error
    if not callable(found):
        raise ValueError(f"rewards: {name!r} is no function")
    return found
