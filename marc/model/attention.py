"""Which attention a part of a model uses, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedConfig


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
