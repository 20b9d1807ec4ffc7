"""On-policy distillation: how far the compressed student's next-token distribution is from the full-frame teacher's.

The student samples a completion ``y`` with few visual tokens; the teacher reads every token of the video and scores
the student's own tokens. At each position of the completion (reverse Kullback-Leibler divergence over the whole
vocabulary, MiniLLM and GKD's direction):

    KL_t = sum_v pi_s(v | y_<t) (log pi_s(v | y_<t) - log pi_t(v | y_<t))
    L    = distill_coef / N * sum_t KL_t        N: completion tokens of the optimizer step

Its gradient goes through the student's distributions, not through the sampling of ``y``. The sum over the vocabulary
is the exact mean of the sampled-token estimator ``log pi_s(y_t) - log pi_t(y_t)`` and has none of its variance; its
price, logits of two models, is paid `POSITIONS_AT_A_TIME` at most. Both models' logits are divided by the sampling
temperature.

Shapes: B completions, C positions, D features, N chosen positions, V words.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

POSITIONS_AT_A_TIME = 512


def reverse_kl(student_NV: Tensor, teacher_NV: Tensor) -> Tensor:
    """``KL(softmax(student) || softmax(teacher))`` of each position, ``[N]``, in float32 or better."""
    dtype = torch.promote_types(student_NV.dtype, torch.float32)
    log_student, log_teacher = (logits.to(dtype).log_softmax(-1) for logits in (student_NV, teacher_NV))
    return (log_student.exp() * (log_student - log_teacher)).sum(-1)


def completion_kl(
    student_BCD: Tensor,
    teacher_BCD: Tensor,
    mask_BC: Tensor,
    heads: tuple[nn.Module, nn.Module],
    *,
    temperature: float,
    parts: int,
) -> Tensor:
    """`reverse_kl` at every position of some completions, ``[B, C]``, 0 where the mask is.

    Args:
        student_BCD: The student's last hidden states, with gradients.
        teacher_BCD: The teacher's.
        mask_BC: Where there are tokens.
        heads: The student's and the teacher's language-model head.
        temperature: Of the sampling.
        parts: In how many steps the heads go over the positions; the same on every process, since ZeRO-3 brings a
            head's weights together for each.
    """
    chosen = mask_BC.bool()

    def of_some(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
        with torch.no_grad():
            teacher_NV = heads[1](teacher_ND) / temperature
        return reverse_kl(heads[0](student_ND) / temperature, teacher_NV)

    states = (states_BCD[chosen].tensor_split(parts) for states_BCD in (student_BCD, teacher_BCD))
    # Without the check of shapes: under ZeRO-3 a frozen weight is empty again when it looks.
    values_N = torch.cat(
        [
            checkpoint(of_some, *pair, use_reentrant=False, determinism_check="none")
            for pair in zip(*states, strict=True)
        ]
    )
    return values_N.new_zeros(mask_BC.shape).masked_scatter(chosen, values_N)


@contextmanager
def last_hidden_states(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collects what a model without head returns as ``last_hidden_state`` in each forward pass."""
    seen: list[Tensor] = []
    hook = model.register_forward_hook(lambda module, args, output: seen.append(output.last_hidden_state))
    try:
        yield seen
    finally:
        hook.remove()
