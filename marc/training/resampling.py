"""Dynamic sampling (DAPO): groups from which nothing would be learned are drawn again, with other prompts.

Where all answers of a group are rewarded alike their advantages are 0, and the group's place in the step is lost.
Drawing another prompt in its place fills the step with groups that differ. Which prompts they are follows from the
seed and the number of the step alone, so that a resumed run draws them again; every process draws as many as the one
that lacks most, so that all make the same calls.

Shapes: B rows of a process, G rows of a group.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

BEFORE = ("prompt_ids", "prompt_mask")
"""What is padded in front; completions are padded behind."""
BY_ROW = (
    *BEFORE,
    "completion_ids",
    "completion_mask",
    "advantages",
    "old_per_token_logps",
    "ref_per_token_logps",
    "sampling_per_token_logps",
    "importance_sampling_ratio",
    "teacher_states",
    "visuals",
    "budgets",
)
"""What a batch holds for each of its rows and a loss reads."""


def other_prompts(size: int, count: int, *draw: object) -> list[int]:
    """Numbers of prompts to draw instead, each once where there are enough.

    Args:
        size: Prompts of the data set.
        count: How many are needed.
        *draw: What the draw follows from: seed, step, attempt, process.
    """
    drawn = random.Random("/".join(map(str, ("resampling", *draw))))
    return drawn.sample(range(size), count) if count <= size else drawn.choices(range(size), k=count)


def replacements(without: Sequence[bool], fresh_without: Sequence[bool], group_size: int) -> list[int]:
    """Which rows of two batches, one behind the other, make the better one.

    A fresh group that has variance takes the place of one that has none, in their order.

    Args:
        without: Of each group of the batch, whether it has no variance.
        fresh_without: Likewise of the groups that were drawn in addition.
        group_size: G.
    """
    chosen = list(range(len(without)))
    places = iter([place for place, flat in enumerate(without) if flat])
    for number, flat in enumerate(fresh_without):
        if not flat and (place := next(places, None)) is not None:
            chosen[place] = len(without) + number
    return [group * group_size + row for group in chosen for row in range(group_size)]


def joined(batch: dict[str, Any], fresh: dict[str, Any], rows: Sequence[int], padding: int) -> dict[str, Any]:
    """Some rows of two batches, one behind the other, as one batch of what a loss reads.

    Args:
        batch: B rows.
        fresh: Further rows.
        rows: Which rows remain, counted through both.
        padding: The id of a token that is none.
    """
    result: dict[str, Any] = {}
    for name in BY_ROW:
        if name not in batch:
            continue
        own, other = batch[name], fresh[name]
        if isinstance(own, Tensor):
            fill = padding if name.endswith("_ids") else 0
            width = max(each.shape[1] if each.ndim > 1 else 0 for each in (own, other))
            wide = [_padded(each, width, fill, in_front=name in BEFORE) for each in (own, other)]
            result[name] = torch.cat(wide)[list(rows)]
        else:
            both = [*own, *other]
            result[name] = [both[row] for row in rows]
    return result


def _padded(value: Tensor, width: int, fill: int, *, in_front: bool) -> Tensor:
    """A tensor whose second dimension has some width."""
    if value.ndim == 1:
        return value
    missing = width - value.shape[1]
    inner = (0, 0) * (value.ndim - 2)
    return pad(value, (*inner, missing, 0) if in_front else (*inner, 0, missing), value=fill)
