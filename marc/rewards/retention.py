r"""The retention reward of C-GRPO: how much of the full-frame teacher's accuracy the compressed student keeps.

For one prompt with the accuracies ``a_1 .. a_G`` of the student's group and the teacher's accuracy ``a_full`` (MARC,
section on C-GRPO):

    eta  = mean(a_i) / a_full                retention ratio
    r_c  = alpha * max(0, eta - tau)         retention reward
    R_i  = r_i + 1[answer i is correct] * r_c

Here is the term that is added to ``r_i`` (accuracy + format). Image rows have no teacher and no retention: do not call
this for them. Three things are left open by the paper and chosen here, in `RetentionConfig`:

- ``alpha`` is not given; 0.3 is what T-GRPO, its ancestor, adds.
- "Correct" needs a threshold where accuracy is a partial credit (OCR, free-form, regression): above 0.1, as in T-GRPO.
- ``a_full = 0`` leaves ``eta`` undefined: there is nothing to retain, so the default reward is 0 (``"none"``). With
  ``"saturate"`` a student that answers what its teacher cannot has ``eta = eta_max``.

``eta > 1`` (the student beats its teacher) is rewarded without limit as published, unless ``eta_max`` caps it: a hard
prompt with ``a_full = 1/8`` and ``mean(a_i) = 1`` has ``eta = 8``, and r_c = 2.22 instead of 0.12.

A term that is equal for all correct answers of a group of binary accuracies is divided out by group-normalised
advantages; `marc.training` has the forms in which it acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class RetentionConfig:
    """The retention reward's parameters; the module's docstring has their sources.

    Attributes:
        alpha: Weight, at least 0.
        tau: Retention ratio from which on it pays, at least 0. The paper's ablation: 0.4, **0.6**, 0.8.
        eta_max: Largest retention ratio that counts; None for no limit, as published.
        zero_teacher: What ``a_full = 0`` means: ``"none"`` or ``"saturate"`` (which needs ``eta_max``).
        correct_above: An answer is correct if its accuracy exceeds this.
        retention_credit: How correct answers share in the reward: each wholly, as published (``"correct"``), or in
            proportion to its own partial credit (``"accuracy"``), which group-normalised advantages keep.
    """

    alpha: float = 0.3
    tau: float = 0.6
    eta_max: float | None = None
    zero_teacher: Literal["none", "saturate"] = "none"
    correct_above: float = 0.1
    retention_credit: Literal["correct", "accuracy"] = "correct"

    def __post_init__(self) -> None:
        if self.alpha < 0 or self.tau < 0:
            raise ValueError(f"alpha and tau must be at least 0, got alpha={self.alpha}, tau={self.tau}")
        if self.eta_max is not None and self.eta_max <= self.tau:
            raise ValueError(f"eta_max={self.eta_max} must exceed tau={self.tau}, or nothing is ever retained")
        if self.zero_teacher not in ("none", "saturate"):
            raise ValueError(f"zero_teacher must be 'none' or 'saturate', got {self.zero_teacher!r}")
        if self.zero_teacher == "saturate" and self.eta_max is None:
            raise ValueError("zero_teacher='saturate' needs eta_max: the ratio that it saturates at")
        if self.retention_credit not in ("correct", "accuracy"):
            raise ValueError(f"retention_credit must be 'correct' or 'accuracy', got {self.retention_credit!r}")
        if not 0 <= self.correct_above < 1:
            raise ValueError(f"correct_above must lie in [0, 1), got {self.correct_above}")


def retention_ratio(accuracies: Sequence[float], a_full: float, config: RetentionConfig | None = None) -> float:
    """``eta = mean(a_i) / a_full``, capped at ``eta_max``; for ``a_full = 0`` as ``zero_teacher`` says.

    Args:
        accuracies: Accuracy of each completion of one group, in ``[0, 1]``.
        a_full: The teacher's mean accuracy on the same prompt, in ``[0, 1]``.
        config: Defaults to ``RetentionConfig()``.

    Raises:
        ValueError: If the group is empty or a value lies outside ``[0, 1]``.
    """
    config = config or RetentionConfig()
    if not accuracies or not all(0 <= value <= 1 for value in (*accuracies, a_full)):
        raise ValueError(f"need a group of accuracies and a_full in [0, 1], got {list(accuracies)} and {a_full}")
    mean = sum(accuracies) / len(accuracies)
    if a_full > 0:
        ratio = mean / a_full
        return ratio if config.eta_max is None else min(ratio, config.eta_max)
    if config.zero_teacher == "saturate" and config.eta_max is not None and mean > 0:
        return config.eta_max
    return 0.0


def retention_reward(
    accuracies: Sequence[float],
    a_full: float,
    *,
    alpha: float | None = None,
    tau: float | None = None,
    config: RetentionConfig | None = None,
) -> list[float]:
    """``1[answer i is correct] * alpha * max(0, eta - tau)`` for each completion of one group, perhaps times ``a_i``.

    Args:
        accuracies: Accuracy of each completion of the group, in ``[0, 1]``.
        a_full: The teacher's accuracy on the same prompt.
        alpha: Replaces ``config.alpha``.
        tau: Replaces ``config.tau``.
        config: Defaults to ``RetentionConfig()``.

    Raises:
        ValueError: If the group is empty, or a value is out of its range.
    """
    config = config or RetentionConfig()
    if alpha is not None or tau is not None:
        config = replace(
            config, alpha=config.alpha if alpha is None else alpha, tau=config.tau if tau is None else tau
        )
    reward = config.alpha * max(0.0, retention_ratio(accuracies, a_full, config) - config.tau)
    graded = config.retention_credit == "accuracy"
    return [
        reward * (accuracy if graded else 1.0) if accuracy > config.correct_above else 0.0 for accuracy in accuracies
    ]
