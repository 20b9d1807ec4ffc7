"""Groups of completions: their retention terms and their advantages, as pure tensor functions.

Completions of one prompt stand side by side; N completions are N / G groups of G.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from marc.rewards import RetentionConfig, TemporalConfig, retention_ratio, retention_reward, temporal_reward

EPSILON = 1e-4
"""TRL's: added to the standard deviation."""


def group_retention(
    accuracies_N: Tensor, a_full_N: Tensor, group_size: int, config: RetentionConfig
) -> tuple[Tensor, Tensor]:
    """The retention term of every completion, and each group's retention ratio.

    Args:
        accuracies_N: Accuracy of each completion; NaN where it could not be graded.
        a_full_N: The teacher's accuracy on each completion's prompt; NaN where there is no teacher (images, texts).
        group_size: G.
        config: The reward's parameters.

    Returns:
        ``[N]`` terms ``1[answer i is correct] r_c`` and ``[N / G]`` ratios; NaN where there is no teacher.
    """
    terms, ratios = torch.full_like(accuracies_N, torch.nan), []
    for start in range(0, len(accuracies_N), group_size):
        graded = [i for i in range(start, start + group_size) if not accuracies_N[i].isnan()]
        a_full = a_full_N[start].item()
        if not graded or a_full != a_full:
            ratios.append(torch.nan)
            continue
        accuracies = [accuracies_N[i].item() for i in graded]
        ratios.append(retention_ratio(accuracies, a_full, config))
        terms[graded] = terms.new_tensor(retention_reward(accuracies, a_full, config=config))
    return terms, terms.new_tensor(ratios)


def group_temporal(accuracies_N: Tensor, shuffled_N: Tensor, group_size: int, config: TemporalConfig) -> Tensor:
    """The temporal term of every completion, ``[N]``; NaN where there is no video.

    Args:
        accuracies_N: Accuracy of each completion; NaN where it could not be graded.
        shuffled_N: Mean accuracy of the answers about the shuffled video, for each completion of its group.
        group_size: G.
        config: The reward's parameters.
    """
    terms = torch.full_like(accuracies_N, torch.nan)
    for start in range(0, len(accuracies_N), group_size):
        graded = [i for i in range(start, start + group_size) if not accuracies_N[i].isnan()]
        if graded and not shuffled_N[start].isnan():
            accuracies = [accuracies_N[i].item() for i in graded]
            terms[graded] = terms.new_tensor(temporal_reward(accuracies, [shuffled_N[start].item()], config))
    return terms


def group_advantages(rewards_N: Tensor, group_size: int, scale: Literal["group", "batch", "none"] | str) -> Tensor:
    """``A_i = (R_i - mean(R)) / std(R)`` with the mean over the group, as TRL computes it (NaN-free rewards only).

    Args:
        rewards_N: Total reward of each completion.
        group_size: G.
        scale: What the standard deviation is taken over; ``"none"`` leaves the differences as they are.
    """
    rewards_BG = rewards_N.view(-1, group_size)
    centred_N = (rewards_BG - rewards_BG.mean(1, keepdim=True)).flatten()
    if scale == "none":
        return centred_N
    deviation_N = rewards_BG.std(1).repeat_interleave(group_size) if scale == "group" else rewards_N.std()
    return centred_N / (deviation_N + EPSILON)


def group_brevity(accuracies_N: Tensor, lengths_N: Tensor, group_size: int, correct_above: float) -> Tensor:
    """What an answer gains by being short, ``(mean length - its length) / longest`` of its group: ``[N]``.

    0 but in groups all of whose answers are right, so that nothing is ever paid for giving up on reasoning that a
    group needs. It is for advantages as they are: divided by a group's standard deviation the smallest difference
    would count as much as being right or wrong. Within a group it sums to 0 and lies in (-1, 1).

    Args:
        accuracies_N: Accuracy of each completion; NaN where it could not be graded.
        lengths_N: Tokens of each completion.
        group_size: G.
        correct_above: An answer is right if its accuracy exceeds this.
    """
    right_B1 = (accuracies_N > correct_above).view(-1, group_size).all(1, keepdim=True)
    lengths_BG = lengths_N.view(-1, group_size).float()
    gains_BG = (lengths_BG.mean(1, keepdim=True) - lengths_BG) / lengths_BG.amax(1, keepdim=True).clamp(min=1)
    return torch.where(right_B1, gains_BG, 0.0).flatten()


def zero_variance_fraction(rewards_N: Tensor, group_size: int) -> float:
    """Part of the groups all of whose rewards are equal: nothing is learned from them."""
    rewards_BG = rewards_N.view(-1, group_size)
    return torch.isclose(rewards_BG.amax(1), rewards_BG.amin(1)).float().mean().item()


def equally_rewarded(rewards_NF: Tensor, group_size: int) -> Tensor:
    """Which completions got what every other of their group got, from each reward function: ``bool [N]``.

    Their advantages are 0. Computed in floating point they are not: the mean of equal numbers is off by rounding, and
    divided by a standard deviation that is itself rounding, this came to up to 0.002.

    Args:
        rewards_NF: Rewards by function; NaN where a function gave none.
        group_size: G.
    """
    rewards_BGF = rewards_NF.nan_to_num(-torch.inf).unflatten(0, (-1, group_size))
    equal_B = (rewards_BGF == rewards_BGF[:, :1]).flatten(1).all(1)
    return equal_B.repeat_interleave(group_size)
