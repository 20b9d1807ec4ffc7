"""Decoding of prompts that begin alike: what they share is read once and kept once.

Eight sampled answers to one prompt share the whole of it, questions about one video share its tokens. A *prefix* is
what some rows have in common; its keys and values stand once in memory, and the rows that go on behind it attend to
them together, in one product. A row that has ended leaves the batch. `decode_rows` is a decoding loop as
``generate(custom_generate=…)`` takes it: processors of logits, stopping rules and sampling options are transformers'.

Shapes: R prefixes, P tokens of the longest, B rows, N rows that have not ended, S new tokens of a row, T own tokens of
a row so far, A heads, K heads of keys, G rows of the largest group, E features of a head, D features, V words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad as pad_in_front
from transformers import AttentionInterface, Cache, DynamicCache, GenerationConfig, LogitsProcessorList
from transformers.generation import StoppingCriteriaList
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from marc.inference.prompts import pad_rows
from marc.model.attention import attention

DECODING_ATTENTION = "rows_behind_prefixes"
SPARE = 0.75
"""Rows that have ended leave the batch once no larger part of it is at work."""


@dataclass
class RowsBehindPrefixes:
    """Keys and values of prefixes, and of the rows behind them.

    Attributes:
        prefix_keys: Of each layer, ``[R, K, P, E]``.
        prefix_values: Likewise.
        prefix_mask: Which of the P tokens a prefix has, ``bool [R, 1, 1, P]``; None: all.
        owners: The prefix of each row, ascending, ``int64 [N]``.
        mask: Which of its own tokens so far a row has, ``bool [N, T]``; padding stands in front.
        room: Most own tokens of a row.
    """

    prefix_keys: list[Tensor]
    prefix_values: list[Tensor]
    prefix_mask: Tensor | None
    owners: Tensor
    mask: Tensor
    room: int

    def __post_init__(self) -> None:
        self._own: dict[int, tuple[Tensor, ...]] = {}
        self._is_full = True
        self._group()

    @classmethod
    def of(cls, cache: DynamicCache, lengths: Sequence[int], owners: Sequence[int], room: int) -> RowsBehindPrefixes:
        """No token yet behind prefixes that have been read into a cache, padded at their ends."""
        keys, values = [layer.keys for layer in cache.layers], [layer.values for layer in cache.layers]
        device, longest = keys[0].device, keys[0].shape[2]
        present = torch.arange(longest, device=device) < torch.tensor(lengths, device=device)[:, None]
        seen = None if min(lengths) == longest else present[:, None, None]
        empty = torch.empty(len(owners), 0, dtype=torch.bool, device=device)
        return cls(keys, values, seen, torch.tensor(owners, device=device), empty, room)

    def add(self, mask_NS: Tensor) -> None:
        """Makes room for new tokens of every row."""
        self.mask = torch.cat((self.mask, mask_NS), dim=1)
        self._is_full = self._is_full and bool(mask_NS.all())

    def own(self, layer: int, key_NKSE: Tensor, value_NKSE: Tensor) -> tuple[Tensor, Tensor]:
        """Keeps the newest keys and values of a layer, for which `add` made room, and returns all of them."""
        end, new = self.mask.shape[1], key_NKSE.shape[2]
        if layer not in self._own:
            shape = (*key_NKSE.shape[:2], self.room, key_NKSE.shape[3])
            self._own[layer] = key_NKSE.new_empty(shape), value_NKSE.new_empty(shape)
        keys, values = self._own[layer]
        keys[:, :, end - new : end], values[:, :, end - new : end] = key_NKSE, value_NKSE
        return keys[:, :, :end], values[:, :, :end]

    def visible(self, new: int, repeats: int) -> Tensor | None:
        """Which own tokens each of the newest ones sees, ``bool [N, 1, repeats * S, T]``; None: all."""
        if new == 1:
            return None if self._is_full else self.mask[:, None, None]
        total, device = self.mask.shape[1], self.mask.device
        itself_ST = torch.eye(new, total, dtype=torch.bool, device=device).roll(total - new, 1)
        before_ST = torch.ones(new, total, dtype=torch.bool, device=device).tril(total - new)
        return ((self.mask[:, None] & before_ST) | itself_ST).repeat(1, repeats, 1)[:, None]

    def keep(self, rows: Tensor) -> None:
        """Drops all other rows."""
        end = self.mask.shape[1]
        self.owners, self.mask = self.owners[rows], self.mask[rows]
        for layer, both in self._own.items():
            kept = tuple(states.new_empty(len(self.owners), *states.shape[1:]) for states in both)
            for ours, states in zip(kept, both, strict=True):
                ours[:, :, :end] = states[rows, :, :end]
            self._own[layer] = kept
        self._group()

    def to_prefixes(self, states_NX: Tensor) -> Tensor:
        """The rows of each prefix side by side, ``[N, …] -> [R, G, …]``; places without a row hold anything."""
        return states_NX[self._rows]

    def to_rows(self, states_RGX: Tensor) -> Tensor:
        """Undoes `to_prefixes`."""
        return states_RGX.flatten(0, 1)[self._places]

    def _group(self) -> None:
        prefixes = len(self.prefix_keys[0])
        counts_R = torch.bincount(self.owners, minlength=prefixes)
        firsts_R = counts_R.cumsum(0) - counts_R
        largest = int(counts_R.max())
        within_N = torch.arange(len(self.owners), device=self.owners.device) - firsts_R[self.owners]
        self._places = self.owners * largest + within_N
        rows = torch.zeros(prefixes * largest, dtype=torch.long, device=self.owners.device)
        rows[self._places] = torch.arange(len(self.owners), device=self.owners.device)
        self._rows = rows.view(prefixes, largest)


def decoding_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    rows: RowsBehindPrefixes,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of new tokens to their prefix and to their row, as `AttentionInterface` wants it.

    Args:
        module: The attention layer.
        query: ``[N, A, S, E]``.
        key: ``[N, K, S, E]``.
        value: As ``key``.
        attention_mask: Must be None.
        rows: Prefixes and rows; takes the new keys and values.
        scaling: Factor on the scores.

    Returns:
        ``[N, S, A, E]``.
    """
    assert attention_mask is None
    layer: Any = module.layer_idx
    keys, values = rows.own(layer, key, value)
    count, heads, new, width = query.shape
    groups = key.shape[1]
    query_NKSE = query.reshape(count, groups, -1, width) * scaling  # heads of a group of keys, one after the other
    query_RGKSE = rows.to_prefixes(query_NKSE)
    prefixes, group = query_RGKSE.shape[:2]
    query_RKXE = query_RGKSE.transpose(1, 2).reshape(prefixes, groups, -1, width)
    before_RKXE = _summed(query_RKXE, rows.prefix_keys[layer], rows.prefix_values[layer], rows.prefix_mask)
    before = [rows.to_rows(part.unflatten(2, (group, -1)).transpose(1, 2)) for part in before_RKXE]
    own = _summed(query_NKSE, keys, values, rows.visible(new, heads // groups))
    mixed = _joined(before, own).to(value.dtype)
    return mixed.view(count, heads, new, width).transpose(1, 2), None


def _summed(
    query_BKXE: Tensor, key_BKTE: Tensor, value_BKTE: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """A softmax over some of the keys that others can be added to.

    Args:
        query_BKXE: Scaled queries.
        key_BKTE: Keys.
        value_BKTE: Values.
        mask: Which keys are seen, ``bool``, to be broadcast to ``[B, K, X, T]``; None: all.

    Returns:
        The largest score of each query, the sum of ``exp(score - largest)``, and the values weighed by these, in
        float32: ``[B, K, X, 1]`` twice and ``[B, K, X, E]``.
    """
    scores = (query_BKXE @ key_BKTE.mT).float()
    if mask is not None:
        scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
    largest = scores.amax(-1, keepdim=True)
    weights = scores.sub_(largest).exp_()
    return largest, weights.sum(-1, keepdim=True), (weights.to(value_BKTE.dtype) @ value_BKTE).float()


def _joined(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """One softmax from two of `_summed`."""
    largest = torch.maximum(a[0], b[0])
    of_a, of_b = (a[0] - largest).exp_(), (b[0] - largest).exp_()
    return (a[2] * of_a + b[2] * of_b) / (a[1] * of_a + b[1] * of_b)


AttentionInterface.register(DECODING_ATTENTION, decoding_attention)
AttentionMaskInterface.register(DECODING_ATTENTION, sdpa_mask)


@dataclass(frozen=True)
class SharedPrompts:
    """Prompts whose prefixes a model has read.

    Attributes:
        cache: Keys and values of the prefixes, padded at their ends.
        lengths: Tokens of each prefix.
        owners: The prefix of each row, ascending.
        rests: Token ids of each row behind its prefix, at least one.
        positions: Of these, ``int64 [3, n]`` each.
    """

    cache: DynamicCache
    lengths: Sequence[int]
    owners: Sequence[int]
    rests: Sequence[Sequence[int]]
    positions: Sequence[Tensor]


def decode_rows(
    model: Any,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    *,
    prompts: SharedPrompts,
    past_key_values: Cache | None = None,
    **_: Any,
) -> Tensor:
    """Decodes rows behind their prefixes: a loop for ``generate(custom_generate=…)``.

    Args:
        model: With a head.
        input_ids: The whole prompts, padded in front, ``[B, L]``: what processors and stopping rules look at.
        logits_processor: Transformers'.
        stopping_criteria: Transformers'.
        generation_config: Transformers'.
        prompts: The same prompts.
        past_key_values: Not used: keys and values are the prompts'.

    Returns:
        ``[B, L + C]``: prompts and completions, these padded at their ends.
    """
    text, head, device = model.model.language_model, model.get_output_embeddings(), input_ids.device
    pad = int(generation_config._pad_token_tensor)
    longest = max(map(len, prompts.rests))
    steps = int(stopping_criteria.max_length or 0) - input_ids.shape[1]
    rows = RowsBehindPrefixes.of(prompts.cache, prompts.lengths, prompts.owners, longest + steps)
    tokens = pad_rows(prompts.rests, 0, left=True).to(device)
    mask = pad_rows([[1] * len(rest) for rest in prompts.rests], 0, left=True).bool().to(device)
    positions = torch.stack([pad_in_front(own, (longest - own.shape[1], 0)) for own in prompts.positions], dim=1)
    sequences, places = input_ids, torch.arange(len(input_ids), device=device)  # of the rows that are in the batch
    at_work = torch.ones_like(places, dtype=torch.bool)
    with attention(text.config, DECODING_ATTENTION):
        while at_work.any():
            rows.add(mask)
            hidden_NSD = text(
                inputs_embeds=text.embed_tokens(tokens),
                position_ids=positions,
                attention_mask={"full_attention": None},
                use_cache=False,
                rows=rows,
            ).last_hidden_state
            scores_NV = logits_processor(sequences[places], head(hidden_NSD[:, -1]).float())
            drawn_N = draw_tokens(scores_NV) if generation_config.do_sample else scores_NV.argmax(-1)
            drawn_N = drawn_N.masked_fill(~at_work, pad)
            column = torch.full_like(sequences[:, :1], pad).index_put((places,), drawn_N[:, None])
            sequences = torch.cat((sequences, column), dim=1)
            at_work = at_work & ~stopping_criteria(sequences[places], scores_NV)
            positions = positions[..., -1:] + 1
            if at_work.float().mean() <= SPARE:
                rows.keep(at_work)
                places, drawn_N, positions, at_work = (
                    places[at_work],
                    drawn_N[at_work],
                    positions[:, at_work],
                    at_work[at_work],
                )
            tokens, mask = drawn_N[:, None], torch.ones_like(drawn_N[:, None], dtype=torch.bool)
    return sequences


def draw_tokens(scores_NV: Tensor) -> Tensor:
    """Draws a token of each row in proportion to ``exp(scores)``, ``int64 [N]``, by inverting the distribution.

    One random number a row: transformers' ``multinomial`` draws one for each word of the vocabulary.
    """
    cumulated_NV = scores_NV.softmax(-1).cumsum(-1, dtype=torch.float64)
    chosen_N1 = torch.rand(len(scores_NV), 1, dtype=torch.float64, device=scores_NV.device) * cumulated_NV[:, -1:]
    return torch.searchsorted(cumulated_NV, chosen_N1, right=True).squeeze(1).clamp(max=scores_NV.shape[1] - 1)
