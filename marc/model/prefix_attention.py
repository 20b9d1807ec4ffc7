"""Attention of sequences that begin alike: what they share is read once, and none of them sees another.

Several questions about a video have its tokens in common. Here they stand behind them, ``prefix | question 1 |
question 2 | …``, and each sees the prefix and itself, as if it were alone. Attention is computed in two parts
(prefixes to themselves, questions to their prefix and themselves), which costs less than a masked square and gives the
same numbers. It is registered with transformers' `AttentionInterface`, so the model's own forward runs unchanged;
without `SharedPrefixes` among the call's arguments it is transformers' ``sdpa``.

The caller gives each token the position that it has when its question is read alone.

Shapes: B rows of L tokens, N = B * L tokens in all, R prefixes, P tokens of the longest, Q questions in all, M tokens
of the longest, A heads, E features of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

PREFIX_ATTENTION = "sdpa_shared_prefixes"
"""Name for the ``attn_implementation`` of language models."""


PARTS = 4
"""Questions are attended to in so many parts of like length, so that little of what is computed is padding."""


@dataclass(frozen=True)
class Questions:
    """Some questions of like length.

    Attributes:
        places: Place of each question's tokens, ``int64 [Q, M]``.
        seen: Places that a question's tokens may see, ``int64 [Q, P + M]``: its prefix, then itself.
        mask: Which of these each of its tokens does see, ``bool [Q, 1, M, P + M]``.
    """

    places: Tensor
    seen: Tensor
    mask: Tensor

    @classmethod
    def behind(cls, prefixes: Sequence[Tensor], questions: Sequence[Tensor], tokens: int) -> Questions:
        """From the places of each question's prefix and of itself; the place ``tokens`` stands for padding."""
        before_QP = pad_sequence(list(prefixes), batch_first=True, padding_value=tokens)
        questions_QM = pad_sequence(list(questions), batch_first=True, padding_value=tokens)
        length = questions_QM.shape[1]
        own = torch.ones(length, length, dtype=torch.bool, device=questions_QM.device).tril()
        seen = (before_QP < tokens)[:, None].expand(-1, length, -1)
        mask = torch.cat((seen, own.expand(len(before_QP), -1, -1)), dim=2)
        return cls(questions_QM, torch.cat((before_QP, questions_QM), dim=1), mask[:, None])

    def clamped(self, last: int) -> Questions:
        """With a place that exists in place of padding."""
        return Questions(self.places.clamp(max=last), self.seen.clamp(max=last), self.mask)


@dataclass(frozen=True)
class SharedPrefixes:
    """Who sees whom among the N tokens of a batch, counted row by row; made by `of`.

    Attributes:
        prefixes: Place of each prefix's tokens, ``int64 [R, P]``; the last place stands for padding, at the end.
        questions: The questions, in parts.
        home: Where each of the N tokens is found in ``prefixes`` and, behind it, ``questions``, ``int64 [N]``.
    """

    prefixes: Tensor
    questions: tuple[Questions, ...]
    home: Tensor

    @classmethod
    def of(
        cls, prefixes: Sequence[Tensor], questions: Sequence[Tensor], owners: Sequence[int], tokens: int
    ) -> SharedPrefixes:
        """From the places of tokens, each part in reading order.

        Args:
            prefixes: Places of each prefix's tokens, ``int64 [<= P]``; not all of them empty.
            questions: Likewise of each question's, at least one.
            owners: Index of each question's prefix.
            tokens: N. Places that belong to nothing are padding, for which anything comes out.
        """
        prefixes_RP = pad_sequence(list(prefixes), batch_first=True, padding_value=tokens)
        assert prefixes_RP.numel() > 0, "attention to prefixes of no tokens"
        by_length = sorted(range(len(questions)), key=lambda index: len(questions[index]))
        step = -(-len(by_length) // PARTS)
        parts = [
            Questions.behind([prefixes[owners[index]] for index in some], [questions[index] for index in some], tokens)
            for some in (by_length[start : start + step] for start in range(0, len(by_length), step))
        ]
        places = torch.cat([prefixes_RP.flatten(), *(part.places.flatten() for part in parts)])
        home = places.new_zeros(tokens + 1)
        home[places] = torch.arange(len(places), device=places.device)
        last = tokens - 1
        return cls(prefixes_RP.clamp(max=last), tuple(part.clamped(last) for part in parts), home[:-1])


def prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    shared_prefixes: SharedPrefixes | None = None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of prefixes and the questions behind them, as `AttentionInterface` wants it.

    Args:
        module: The attention layer.
        query: ``[B, A, L, E]``.
        key: Likewise, of perhaps fewer heads.
        value: As ``key``.
        attention_mask: For ``sdpa``; `SharedPrefixes` stand in its place.
        shared_prefixes: Who sees whom; None: as ``sdpa`` does it.
        scaling: Factor on the scores.
        dropout: Probability.
        **kwargs: For ``sdpa``.

    Returns:
        ``[B, L, A, E]``.
    """
    if shared_prefixes is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    batch, heads, length, width = query.shape
    query_NAE, key_NAE, value_NAE = (states.transpose(1, 2).flatten(0, 1) for states in (query, key, value))

    def attend(queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        states = (query_NAE[queries], key_NAE[keys], value_NAE[keys])
        mixed, _ = sdpa_attention_forward(
            module, *(part.transpose(1, 2) for part in states), mask, dropout=dropout, scaling=scaling, is_causal=True
        )
        return mixed.flatten(0, 1)

    prefixes = attend(shared_prefixes.prefixes, shared_prefixes.prefixes, None)
    questions = [attend(part.places, part.seen, part.mask) for part in shared_prefixes.questions]
    mixed_NAE = torch.cat((prefixes, *questions))[shared_prefixes.home]
    return mixed_NAE.view(batch, length, heads, width), None


AttentionInterface.register(PREFIX_ATTENTION, prefix_attention)
AttentionMaskInterface.register(PREFIX_ATTENTION, sdpa_mask)
