"""Parts of TRL that are ours for a while: its reference model and its engine at set-up, ``generate`` for one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor
from trl.trainer import grpo_trainer

from marc.model import CompressedVLM
from marc.training.config import CGRPOConfig
from marc.training.video_trainer import base_model, frozen_copy
from marc.training.whole_weights import without_hooks


def references_are_copies(model: Any) -> AbstractContextManager[None]:
    """While TRL sets itself up, its reference model is a copy of ours: it looks classes up in transformers alone."""
    if not isinstance(model, CompressedVLM):
        return nullcontext()
    return _replaced("create_model_from_path", lambda *_, **__: frozen_copy(model))


def engine_is_ours(model: Any, args: CGRPOConfig) -> AbstractContextManager[None]:
    """While TRL sets itself up, its engine is ours where the model is (`marc.training.rollouts`)."""
    if not args.use_vllm or not isinstance(base_model(model), CompressedVLM):
        return nullcontext()
    from marc.training import rollouts

    return _replaced("VLLMGeneration", rollouts.VideoVLLM)


@contextmanager
def _replaced(name: str, value: Any) -> Iterator[None]:
    before = getattr(grpo_trainer, name)
    setattr(grpo_trainer, name, value)
    try:
        yield
    finally:
        setattr(grpo_trainer, name, before)


@contextmanager
def generating(model: Any, answers: Callable[..., Tensor]) -> Iterator[None]:
    """Has the next call of ``model.generate`` answered by another function."""

    def once(**inputs: Any) -> Tensor:
        del model.generate
        return answers(**inputs)

    model.generate = once
    try:
        yield
    finally:
        vars(model).pop("generate", None)


def alone(model: Any, answers: Callable[..., Tensor], **inputs: Any) -> Tensor:
    """Answers of a process that has all weights: others may answer in another way, and it does not wait for them."""
    with without_hooks(model):
        return answers(**inputs, synced_gpus=False)
