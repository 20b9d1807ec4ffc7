"""The losses against what their equations say, computed one completion at a time."""

import copy

import numpy as np
import pytest
import torch

from experiments.ablation.methods import (
    CGRPO,
    Distillation,
    build_method,
    policy_loss,
    sft_step,
)
from experiments.ablation.settings import MethodOptions
from experiments.tiny_model.answers import Sampler
from experiments.tiny_model.branches import Completions, completion_logits, prompts_only
from marc.rewards import RetentionConfig


@pytest.fixture
def student(tiny):
    model = copy.deepcopy(tiny[0])
    model.model.language_model.requires_grad_(True)
    return model


@pytest.fixture
def unsure(student):
    """A student with noise on its weights, whose samples differ."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in student.model.language_model.layers.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
    return student


def gradient(model, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad(set_to_none=True)
    loss.backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def test_the_policy_loss_is_grpos(tiny, unsure, batch):
    """Gradient of ``-1/n sum_i A_i sum_t log pi(t)``; questions without advantages change nothing."""
    packed = prompts_only(batch.packed)
    completions = Sampler(tiny[1]).draw(unsure, packed, 3, torch.Generator().manual_seed(0))
    advantages = torch.tensor(np.random.default_rng(0).normal(size=completions.tokens.shape[:3]), dtype=torch.float32)
    advantages[0] = 0
    loss = policy_loss(unsure, packed, completions, advantages)
    assert loss is not None
    ours = gradient(unsure, loss)
    logps = completion_logits(unsure, packed, completions).log_softmax(-1)
    tokens = logps.gather(-1, completions.tokens[..., None]).squeeze(-1)
    expected = -(advantages[..., None] * tokens * completions.mask).sum() / completions.mask.sum()
    assert torch.allclose(ours, gradient(unsure, expected), atol=1e-6, rtol=1e-3) and ours.abs().max() > 1e-4
    assert policy_loss(unsure, packed, completions, torch.zeros_like(advantages)) is None


def test_retention_is_divided_out_of_binary_groups(tiny):
    """METHOD: with binary accuracies a constant bonus of the correct ones leaves normalised advantages as they are."""
    method = CGRPO(Sampler(tiny[1]), 4, RetentionConfig())
    accuracy = torch.tensor([1.0, 0, 0, 1, 1, 1, 1, 1])
    advantages, stats = method.advantages(accuracy, torch.ones(8))
    assert stats["advantage_change"] < 1e-3 and stats["zero_variance"] == 0.5
    assert torch.allclose(advantages[4:], torch.zeros(4)) and advantages[0] > 0 > advantages[1]
    partial = torch.tensor([1.0, 0.5, 0.05, 0.9])
    assert method.advantages(partial, torch.ones(4))[1]["advantage_change"] > 1e-3


def test_sft_is_the_cross_entropy_of_the_right_answers(tiny, student, batch):
    step = sft_step(student, batch, torch.Generator())
    packed = batch.packed
    terms = []
    for video in range(len(packed.prompts)):
        for place in range(packed.prompts.shape[1]):
            start, end = int(packed.prompts[video, place]), int(packed.lengths[video, place])
            answer = packed.questions[video, place, start:end]
            every = torch.zeros(*packed.prompts.shape, 1, len(answer), dtype=torch.long)
            every[video, place, 0] = answer
            logits = completion_logits(student, prompts_only(packed), Completions(every, every >= 0))
            terms.append(torch.nn.functional.cross_entropy(logits[video, place, 0], answer, reduction="none"))
    assert step.loss is not None and torch.allclose(step.loss, torch.cat(terms).mean(), atol=1e-4)


def test_a_student_that_sees_what_its_teacher_sees_has_nothing_to_distill(tiny, student, pool, batch):
    step = Distillation(Sampler(tiny[1]), tiny[0], pool)(student, batch, torch.Generator().manual_seed(0))
    assert step.loss is not None
    assert (abs(step.loss.item()) < 1e-5) == (batch.budget == "full")


def test_every_method_moves_every_weight(tiny, student, pool, batch):
    for name in ("sft", "c-grpo", "distill"):
        method = build_method(name, options=MethodOptions(), sampler=Sampler(tiny[1]), teacher=tiny[0], pool=pool)
        step = method(student, batch, torch.Generator().manual_seed(1))
        if name == "distill" and batch.budget == "full":
            continue
        assert step.loss is not None and gradient(student, step.loss).isfinite().all()
        moved = [
            weight.grad is not None and weight.grad.abs().max() > 0
            for weight in student.model.language_model.parameters()
        ]
        assert all(moved), name
    with pytest.raises(ValueError, match="unknown method"):
        build_method("dpo", options=MethodOptions(), sampler=Sampler(tiny[1]), teacher=tiny[0], pool=pool)
