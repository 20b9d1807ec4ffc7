"""Which attention a part of a model uses, for a while, and what its layers allow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedConfig

NOT_SHARED = {
    "linear_attention": "a recurrent layer's state is one row's own",
    "sliding_attention": "a layer with a sliding window sees a part of what is before it only",
}


def why_not_shared(text: Any) -> str | None:
    """Why several rows cannot go on behind one copy of what they begin with; ``None`` if they can.

    Args:
        text: A language model.
    """
    kinds = getattr(text.config, "layer_types", None) or ()
    return next((reason for kind, reason in NOT_SHARED.items() if kind in kinds), None)


@contextmanager
def attention(config: PreTrainedConfig, name: str | None) -> Iterator[None]:
    """Has the part of a model that a configuration belongs to use a registered attention.

    Args:
        config: Of the vision tower or the language model.
        name: As in transformers' ``attn_implementation``.
    """
    before, config._attn_implementation = config._attn_implementation, name
    try:
        yield
    finally:
        config._attn_implementation = before
