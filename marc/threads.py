"""How many threads of a CPU a model gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

SMALL = 16_000_000
"""Weights of a model whose matrices are too small for threads to share."""


@contextmanager
def threads_for(model: nn.Module) -> Iterator[None]:
    """Runs a small model on a CPU in one thread, a large one as torch is set.

    Sharing small matrices out costs as much as it saves, and where other work wants the processors, threads wait for
    each other many times as long as one alone would work (docs/serving.md, "Load").
    """
    before = torch.get_num_threads()
    if before == 1 or next(model.parameters()).device.type != "cpu" or _weights(model) > SMALL:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _weights(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())
