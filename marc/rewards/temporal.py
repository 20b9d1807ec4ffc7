r"""The temporal reward of T-GRPO (Video-R1): whether the order of the frames helped.

For one prompt about a video, with the accuracies ``a_1 .. a_G`` of the group and those of answers to the same video
with its frames in a drawn order:

    r_t  = alpha  if  mean(a_i) >= ratio * mean(a of shuffled),  else 0
    R_i  = r_i + 1[answer i is correct] * r_t

Video-R1's training code has ``alpha = 0.3``, ``ratio = 0.8`` and half as many shuffled answers as ordered ones; an
answer is correct if its accuracy exceeds 0.1. Like the retention term, ``r_t`` is the same for all correct answers of
a group: where accuracies are 0 or 1, group-normalised advantages lose it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TemporalConfig:
    """The temporal reward's parameters.

    Attributes:
        alpha: The bonus, at least 0; 0 is none.
        ratio: Part of the shuffled answers' accuracy that the ordered ones must reach.
        correct_above: An answer is correct if its accuracy exceeds this.
    """

    alpha: float = 0.0
    ratio: float = 0.8
    correct_above: float = 0.1

    def __post_init__(self) -> None:
        if self.alpha < 0 or self.ratio < 0:
            raise ValueError(
                f"temporal_alpha and temporal_ratio must be at least 0, got {self.alpha} and {self.ratio}"
            )


def temporal_reward(accuracies: Sequence[float], shuffled: Sequence[float], config: TemporalConfig) -> list[float]:
    """``1[answer i is correct] * r_t`` for each completion of one group.

    Args:
        accuracies: Accuracy of each answer about the video in order.
        shuffled: Accuracy of each answer about the shuffled video.
        config: The reward's parameters.

    Raises:
        ValueError: If there are none.
    """
    if not accuracies or not shuffled:
        raise ValueError("need the accuracies of at least one answer in order and one about the shuffled video")
    mean, mean_shuffled = sum(accuracies) / len(accuracies), sum(shuffled) / len(shuffled)
    bonus = config.alpha if mean >= config.ratio * mean_shuffled else 0.0
    return [bonus if accuracy > config.correct_above else 0.0 for accuracy in accuracies]
