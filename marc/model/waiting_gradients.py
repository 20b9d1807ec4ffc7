"""Gradients that several passes have for the same tensor, and one of them takes back to where it comes from."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial

import torch
from torch import Tensor


class WaitingGradients:
    """Gradients of leaves, in float32 at least, that wait for a tensor which has the values of these leaves.

    Its length is the number of tensors for which some wait.
    """

    def __init__(self) -> None:
        self._gradients: dict[Hashable, Tensor] = {}

    def __len__(self) -> int:
        return len(self._gradients)

    def leaf(self, key: Hashable, values: Tensor) -> Tensor:
        """The same values without their history, whose gradients wait."""
        leaf = values.detach().requires_grad_()
        leaf.register_post_accumulate_grad_hook(partial(self._add, key))
        return leaf

    def join(self, key: Hashable, values: Tensor, places: Tensor | None = None) -> None:
        """Has the gradients that wait go backward with those of a tensor, which then has all of them.

        Args:
            key: As of the leaves.
            values: What they were copies of; without a gradient what waits is dropped.
            places: Where they were, along the first dimension; None: everywhere.
        """
        waiting = self._gradients.pop(key, None)
        if waiting is not None and values.requires_grad:
            values.register_hook(partial(_sum, waiting, places))

    def _add(self, key: Hashable, leaf: Tensor) -> None:
        assert leaf.grad is not None
        gradient = leaf.grad.to(torch.promote_types(leaf.dtype, torch.float32))
        self._gradients[key] = self._gradients[key] + gradient if key in self._gradients else gradient
        leaf.grad = None


def _sum(waiting: Tensor, places: Tensor | None, gradient: Tensor) -> Tensor:
    if places is None:
        return (gradient + waiting).to(gradient.dtype)
    return gradient.index_put((places,), (gradient[places] + waiting).to(gradient.dtype))
