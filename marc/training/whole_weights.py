"""All weights on every process for a while, where ZeRO-3 shares them out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from transformers.integrations import is_deepspeed_zero3_enabled
from trl.models.utils import unwrap_model_for_generation


def gathering(trainer: Any, engine: Callable[[], Any]) -> Callable[[], AbstractContextManager[object]]:
    """What brings all weights of a model to every process, where ZeRO-3 shares them out."""
    if not is_deepspeed_zero3_enabled():
        return nullcontext

    @contextmanager
    def whole() -> Iterator[None]:
        kwargs = trainer.args.gradient_checkpointing_kwargs
        with (
            unwrap_model_for_generation(engine(), trainer.accelerator, gradient_checkpointing_kwargs=kwargs) as model,
            without_hooks(model),
        ):
            yield

    return whole


@contextmanager
def without_hooks(root: Any) -> Iterator[None]:
    """TRL takes ZeRO-3's hooks off all modules, but not those at the root, which wait for the other processes."""
    names = ("_forward_pre_hooks", "_forward_hooks")
    kept = {name: getattr(root, name) for name in names}
    try:
        for name in names:
            setattr(root, name, OrderedDict())
        yield
    finally:
        for name, hooks in kept.items():
            setattr(root, name, hooks)
