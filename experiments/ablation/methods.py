"""One step's loss of each method, on packed questions.

- ``sft``: cross-entropy of the right answer's tokens.
- ``c-grpo``: G answers are drawn and graded; the loss of TRL's GRPO (``loss_type="dapo"``, one update per batch, no
  KL penalty) with the advantages and the retention term of `marc.training.advantages`.
- ``distill``: one answer is drawn; at each of its tokens the reverse KL divergence from what the student predicts at
  its budget to what the teacher predicts from all tokens (`marc.training.distill`).

Shapes: B videos, Q questions of a video, G completions of a question, C tokens, V vocabulary, N = B * Q * G.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.ablation.pool import Batch, TrainingPool
from experiments.tiny_model.answers import Sampler, select
from experiments.tiny_model.branches import Completions, completion_logits, prompts_only
from experiments.tiny_model.packing import IGNORED, Packed, packed_hidden
from marc.model import MarcForConditionalGeneration
from marc.rewards import RetentionConfig, accuracy_reward
from marc.training.advantages import group_advantages, group_retention, zero_variance_fraction
from marc.training.distill import reverse_kl

Stats = dict[str, float]


@dataclass(frozen=True)
class Step:
    """What a method makes of a batch.

    Attributes:
        loss: Connected to the weights; None if there is nothing to learn from this batch.
        completions: Answers that were drawn.
        stats: Numbers to log.
    """

    loss: Tensor | None
    completions: int
    stats: Stats


Method = Callable[[MarcForConditionalGeneration, Batch, torch.Generator], Step]


def sft_step(model: MarcForConditionalGeneration, batch: Batch, generator: torch.Generator) -> Step:
    """``L = -1/n sum log pi(t)`` over the n tokens of the right answers."""
    hidden = packed_hidden(model, batch.packed, jump=False)
    chosen = batch.packed.labels != IGNORED
    loss = F.cross_entropy(model.lm_head(hidden[chosen]).float(), batch.packed.labels[chosen])
    return Step(loss, 0, {"loss": loss.item()})


@lru_cache(maxsize=200_000)
def graded(text: str, solution: str, problem_type: str) -> float:
    """`marc.rewards.accuracy_reward` of one answer."""
    return accuracy_reward([text], [solution], [problem_type])[0]


@dataclass(frozen=True)
class CGRPO:
    """C-GRPO.

    Attributes:
        sampler: Draws answers.
        group: G.
        retention: The retention reward, in its published form.
    """

    sampler: Sampler
    group: int
    retention: RetentionConfig

    def __call__(self, model: MarcForConditionalGeneration, batch: Batch, generator: torch.Generator) -> Step:
        """Samples, grades, and returns the policy's loss."""
        packed = prompts_only(batch.packed)
        completions = self.sampler.draw(model, packed, self.group, generator)
        questions = [question for row in batch.rows for question in row for _ in range(self.group)]
        accuracy_N = torch.tensor(
            [
                graded(text, question.answer, question.problem_type)
                for text, question in zip(self.sampler.texts(completions), questions, strict=True)
            ]
        )
        advantages_N, stats = self.advantages(accuracy_N, batch.a_full.flatten().repeat_interleave(self.group))
        loss = policy_loss(model, packed, completions, advantages_N.view(completions.tokens.shape[:3]))
        return Step(loss, len(questions), stats)

    def advantages(self, accuracy_N: Tensor, a_full_N: Tensor) -> tuple[Tensor, Stats]:
        """Group-normalised advantages of accuracy and retention, and what the retention term did."""
        terms_N, ratios = group_retention(accuracy_N, a_full_N, self.group, self.retention)
        advantages_N = group_advantages(accuracy_N + terms_N, self.group, "group")
        change = (advantages_N - group_advantages(accuracy_N, self.group, "group")).abs().mean()
        return advantages_N, {
            "reward": accuracy_N.mean().item(),
            "eta": ratios.mean().item(),
            "advantage_change": change.item(),
            "zero_variance": zero_variance_fraction(accuracy_N, self.group),
        }


def policy_loss(
    model: MarcForConditionalGeneration, packed: Packed, completions: Completions, advantages_BQG: Tensor
) -> Tensor | None:
    """``L = -1/n sum_i A_i sum_t pi(t) / sg[pi(t)]`` over the n tokens of all completions.

    That is GRPO's clipped objective where the policy is the one that drew the completions. Questions all of whose
    advantages are 0 have no gradient and are not read again; their tokens count in n.

    Returns:
        None if no question is left.
    """
    active = (advantages_BQG != 0).any(-1).nonzero().tolist()
    if not active:
        return None
    rows = tuple(torch.tensor(active).T)
    chosen = Completions(completions.tokens[rows][:, None], completions.mask[rows][:, None])
    chosen = trimmed(chosen)
    logps = token_logps(completion_logits(model, select(packed, *rows), chosen), chosen)
    ratio = (logps - logps.detach()).exp()
    weighted = advantages_BQG[rows][:, None, :, None] * ratio * chosen.mask
    return -weighted.sum() / completions.mask.sum()


def trimmed(completions: Completions) -> Completions:
    """Without the columns that no completion reaches."""
    length = int(completions.mask.sum(-1).max())
    return Completions(completions.tokens[..., :length], completions.mask[..., :length])


def token_logps(logits: Tensor, completions: Completions) -> Tensor:
    """Log-probability of every token, ``[B, Q, G, C]``."""
    return logits.log_softmax(-1).gather(-1, completions.tokens[..., None]).squeeze(-1)


@dataclass(frozen=True)
class Distillation:
    """On-policy distillation from the teacher, which sees all tokens.

    Attributes:
        sampler: Draws answers.
        teacher: Is not changed.
        pool: Knows what the teacher sees.
    """

    sampler: Sampler
    teacher: MarcForConditionalGeneration
    pool: TrainingPool

    def __call__(self, model: MarcForConditionalGeneration, batch: Batch, generator: torch.Generator) -> Step:
        """Samples one answer to each question and returns the divergence along it."""
        packed = prompts_only(batch.packed)
        completions = trimmed(self.sampler.draw(model, packed, 1, generator))
        shown = replace(packed, visual=self.pool.visual("full", batch.videos))
        with torch.no_grad():
            target = completion_logits(self.teacher, shown, completions)[completions.mask]
        predicted = completion_logits(model, packed, completions)[completions.mask]
        loss = reverse_kl(predicted, target).mean()
        return Step(loss, completions.mask[..., 0].numel(), {"loss": loss.item()})


def build_method(name: str, *, options: Any, sampler: Sampler, teacher: Any, pool: TrainingPool) -> Method:
    """The method of a stage."""
    if name == "sft":
        return sft_step
    if name == "c-grpo":
        return CGRPO(sampler, options.generations, options.retention)
    if name == "distill":
        return Distillation(sampler, teacher, pool)
    raise ValueError(f"unknown method {name!r}: it must be sft, c-grpo or distill")
