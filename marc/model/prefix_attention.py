"""Attention of sequences that begin alike: what they share is read once, and none of them sees another.

Several questions about a video have its tokens in common. Here they stand behind them, ``prefix | question 1 |
question 2 | …``, and each sees the prefix and itself, as if it were alone. Attention is computed in two parts
(prefixes to themselves, questions to their prefix and themselves), which costs less than a masked square and gives the
same numbers. It is registered with transformers' `AttentionInterface`, so the model's own forward runs unchanged;
without `SharedPrefixes` among the call's arguments it is transformers' ``sdpa``.

The caller gives each token the position that it has when its question is read alone.

Where the questions behind a prefix are read in several passes, all but the last may read its keys and values
(`PrefixStates`) in its place; the last one reads it with all gradients that these have had.

Shapes: B rows of L tokens, N = B * L tokens in all, R prefixes, P tokens of the longest, Q sequences of questions,
M tokens of the longest, A heads, E features of a head, S tokens that passes before have read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from marc.model.waiting_gradients import WaitingGradients

PREFIX_ATTENTION = "sdpa_shared_prefixes"
"""Name for the ``attn_implementation`` of language models."""


PARTS = 4
"""Sequences are attended to in so many parts of like length, so that little of what is computed is padding."""


PACKED = 0.5
"""Questions behind one prefix are attended to as one sequence that has no more tokens than this part of the prefix:
its keys are gathered once for all of them, and few of the pairs that are computed are of two questions."""


@dataclass(frozen=True)
class Questions:
    """Some sequences of like length, each of one or more questions behind one prefix.

    Attributes:
        places: Place of each sequence's tokens, ``int64 [Q, M]``.
        seen: Places that a sequence's tokens may see, ``int64 [Q, P + M]``: its prefix, then itself.
        mask: Which of these each of its tokens does see, ``bool [Q, 1, M, P + M]``.
    """

    places: Tensor
    seen: Tensor
    mask: Tensor

    @classmethod
    def behind(cls, prefixes: Sequence[Tensor], packs: Sequence[Sequence[Tensor]], tokens: int) -> Questions:
        """From the places of each sequence's prefix and questions; the place ``tokens`` stands for padding."""
        before_QP = pad_sequence(list(prefixes), batch_first=True, padding_value=tokens)
        places_QM = pad_sequence([torch.cat(list(pack)) for pack in packs], batch_first=True, padding_value=tokens)
        numbers = [torch.cat([torch.full_like(own, number) for number, own in enumerate(pack)]) for pack in packs]
        numbers_QM = pad_sequence(numbers, batch_first=True, padding_value=-1)
        own_QMM = (numbers_QM[:, :, None] == numbers_QM[:, None]).tril()
        seen_QMP = (before_QP < tokens)[:, None].expand(-1, places_QM.shape[1], -1)
        mask = torch.cat((seen_QMP, own_QMM), dim=2)
        return cls(places_QM, torch.cat((before_QP, places_QM), dim=1), mask[:, None])

    def clamped(self, read: int, seen: int) -> Questions:
        """With places that exist in place of padding: the last one that is read and the last one that is seen."""
        return Questions(self.places.clamp(max=read), self.seen.clamp(max=seen), self.mask)


class PrefixStates:
    """Keys and values of a prefix in all layers, ``[P, A, E]`` each, and the gradients that wait for them.

    A pass without gradients leaves them (`keep`). Passes with gradients may read them in place of the prefix
    (`leaves`), until one reads the prefix itself with gradients, which those that wait join (`join`).
    """

    def __init__(self) -> None:
        self._states: dict[int, tuple[Tensor, Tensor]] = {}
        self._gradients = WaitingGradients()

    @property
    def tokens(self) -> int:
        """P; 0 before the prefix was read, and after `forget`."""
        return len(next(iter(self._states.values()))[0]) if self._states else 0

    def keep(self, layer: int, key_PAE: Tensor, value_PAE: Tensor) -> None:
        """Takes what a layer has."""
        self._states[layer] = key_PAE, value_PAE

    def leaves(self, layer: int) -> tuple[Tensor, Tensor]:
        """A layer's keys and values, whose gradients wait here."""
        key_PAE, value_PAE = self._states[layer]
        if not torch.is_grad_enabled():
            return key_PAE, value_PAE
        return self._gradients.leaf((layer, "key"), key_PAE), self._gradients.leaf((layer, "value"), value_PAE)

    def join(self, layer: int, key_NAE: Tensor, value_NAE: Tensor, places_P: Tensor) -> None:
        """Has a layer that reads the prefix again, at some places, take the gradients that wait."""
        if torch.is_grad_enabled():  # else layers are computed again for their gradients
            self._gradients.join((layer, "key"), key_NAE, places_P)
            self._gradients.join((layer, "value"), value_NAE, places_P)

    def forget(self) -> None:
        """Keeps no more than the gradients: the prefix is read again."""
        self._states = {}


@dataclass(frozen=True)
class SharedPrefixes:
    """Who sees whom among the N tokens of a batch, counted row by row; made by `of`.

    Attributes:
        prefixes: Place of each prefix's tokens, ``int64 [R, P]``; the last place stands for padding, at the end.
        questions: The questions, in parts; the S tokens that were read before have the places from N on.
        home: Where each of the N tokens is found in ``prefixes`` and, behind it, ``questions``, ``int64 [N]``.
        stored: Prefixes that were read before.
        kept: Where what is read now is left for later passes, and the places of these prefixes.
        joined: What waits for prefixes that are read now, and their places.
    """

    prefixes: Tensor
    questions: tuple[Questions, ...]
    home: Tensor
    stored: tuple[PrefixStates, ...] = ()
    kept: tuple[tuple[PrefixStates, Tensor], ...] = ()
    joined: tuple[tuple[PrefixStates, Tensor], ...] = ()

    @classmethod
    def of(
        cls,
        prefixes: Sequence[Tensor],
        questions: Sequence[Tensor],
        owners: Sequence[int],
        tokens: int,
        stored: Sequence[PrefixStates] = (),
    ) -> SharedPrefixes:
        """From the places of tokens, each part in reading order.

        Args:
            prefixes: Places of each prefix's tokens, ``int64 [<= P]``.
            questions: Likewise of each question's, at least one.
            owners: Index of each question's prefix; those of ``stored`` follow on ``prefixes``.
            tokens: N. Places that belong to nothing are padding, for which anything comes out.
            stored: Prefixes that were read before. Some prefix has tokens.
        """
        device = questions[0].device
        sizes = [states.tokens for states in stored]
        every = tokens + sum(sizes)
        before = torch.arange(tokens, every, device=device).split(sizes) if sizes else ()
        openings = [*prefixes, *before]
        assert sum(map(len, openings)) > 0, "attention to prefixes of no tokens"
        prefixes_RP = pad_sequence(list(prefixes or [questions[0][:0]]), batch_first=True, padding_value=every)
        packs = list(_packs([len(own) for own in questions], owners, [len(own) for own in openings]))
        packs.sort(key=lambda pack: sum(len(questions[index]) for index in pack))
        step = -(-len(packs) // PARTS)
        parts = [
            Questions.behind(
                [openings[owners[pack[0]]] for pack in some],
                [[questions[index] for index in pack] for pack in some],
                every,
            )
            for some in (packs[start : start + step] for start in range(0, len(packs), step))
        ]
        places = torch.cat([prefixes_RP.flatten(), *(part.places.flatten() for part in parts)])
        home = places.new_zeros(every + 1)
        home[places] = torch.arange(len(places), device=device)
        read, seen = tokens - 1, every - 1
        clamped = tuple(part.clamped(read, seen) for part in parts)
        return cls(prefixes_RP.clamp(max=read), clamped, home[:tokens], tuple(stored))


def _packs(lengths: Sequence[int], owners: Sequence[int], prefixes: Sequence[int]) -> Iterator[list[int]]:
    """Indices of questions that are attended to as one sequence, each of one prefix."""
    for owner in dict.fromkeys(owners):
        pack: list[int] = []
        for index in (index for index, other in enumerate(owners) if other == owner):
            if pack and sum(lengths[each] for each in (*pack, index)) > PACKED * prefixes[owner]:
                yield pack
                pack = []
            pack.append(index)
        yield pack


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
    seen_key, seen_value = key_NAE, value_NAE  # and, behind the N tokens, those of stored prefixes
    if shared_prefixes.kept or shared_prefixes.joined or shared_prefixes.stored:
        layer = cast(int, module.layer_idx)
        for states, places in shared_prefixes.kept:
            states.keep(layer, key_NAE[places], value_NAE[places])
        for states, places in shared_prefixes.joined:
            states.join(layer, key_NAE, value_NAE, places)
        before = [(key_NAE, value_NAE), *(states.leaves(layer) for states in shared_prefixes.stored)]
        seen_key, seen_value = (torch.cat(each) for each in zip(*before, strict=True))

    def attend(queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        states = (query_NAE[queries], seen_key[keys], seen_value[keys])
        mixed, _ = sdpa_attention_forward(
            module, *(part.transpose(1, 2) for part in states), mask, dropout=dropout, scaling=scaling, is_causal=True
        )
        return mixed.flatten(0, 1)

    own = shared_prefixes.prefixes
    prefixes = [attend(own, own, None)] if own.numel() else []
    questions = [attend(part.places, part.seen, part.mask) for part in shared_prefixes.questions]
    mixed_NAE = torch.cat((*prefixes, *questions))[shared_prefixes.home]
    return mixed_NAE.view(batch, length, heads, width), None


AttentionInterface.register(PREFIX_ATTENTION, prefix_attention)
AttentionMaskInterface.register(PREFIX_ATTENTION, sdpa_mask)
