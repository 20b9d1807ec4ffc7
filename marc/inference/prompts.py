"""Prompts as token ids: one placeholder for each video or image, repeated as often as it has visual tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marc.compression import CompressionConfig
from marc.inference.video_input import VideoInput


@dataclass(frozen=True)
class Prompt:
    """What a model is asked.

    Attributes:
        ids: Token ids with one placeholder for each video or image.
        inputs: What these show, in order.
    """

    ids: tuple[int, ...]
    inputs: tuple[VideoInput, ...] = ()

    @property
    def compression(self) -> CompressionConfig | None:
        """The budget at which it shows its videos; None: it shows none."""
        budgets = {each.compression for each in self.inputs if each.kind == "video"}
        assert len(budgets) <= 1, "one prompt has one budget"
        return next(iter(budgets), None)

    @property
    def tokens(self) -> int:
        """How many tokens the language model reads."""
        return len(self.ids) - len(self.inputs) + sum(len(each.ids) for each in self.inputs)

    def expanded(self, model: Any) -> list[int]:
        """The token ids that the language model reads."""
        return expand_placeholders(self.ids, [each.ids for each in self.inputs], model)

    def marked(self, model: Any) -> list[tuple[int, int]]:
        """Each of these with the number of the input that it shows, from 1; 0 for text."""
        placeholders, inputs = (model.config.image_token_id, model.config.video_token_id), enumerate(self.inputs, 1)
        marked: list[tuple[int, int]] = []
        for token in self.ids:
            if token in placeholders:
                number, shown = next(inputs)
                marked += [(read, number) for read in shown.ids]
            else:
                marked.append((token, 0))
        return marked


def expand_placeholders(ids: Sequence[int], shown: Sequence[Sequence[int]], model: Any) -> list[int]:
    """Token ids with what stands for each file, see `VideoInput.ids`, in place of its placeholder, in order."""
    placeholders = (model.config.image_token_id, model.config.video_token_id)
    found = sum(token in placeholders for token in ids)
    assert found == len(shown), f"{found} placeholders for {len(shown)} files"
    files = iter(shown)
    return [read for token in ids for read in (next(files) if token in placeholders else (token,))]


def end_of_visuals(ids: Sequence[int], model: Any) -> int:
    """Number of tokens up to the last visual one, 0 without any."""
    visual = (model.config.image_token_id, model.config.video_token_id)
    return 1 + max((place for place, token in enumerate(ids) if token in visual), default=-1)


def pad_rows(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> Tensor:
    """Rows of token ids as one tensor, padded at their ends or in front: ``int64 [B, L]``."""
    longest = max(map(len, rows))
    fill = ([value] * (longest - len(row)) for row in rows)
    return torch.tensor([[*more, *row] if left else [*row, *more] for row, more in zip(rows, fill, strict=True)])
