"""Decoding of prompts that begin alike: what they share is read once and kept once.

Eight sampled answers to one prompt share the whole of it, questions about one video share its tokens. A *prefix* is
what some rows have in common; its keys and values stand once in memory, and the rows that go on behind it attend to
them together, in one product. A row that has ended leaves the batch. `decode_rows` is a decoding loop as
``generate(custom_generate=…)`` takes it: processors of logits, stopping rules and sampling options are transformers'.

Shapes: R prefixes, P tokens of the longest, B rows, N rows that have not ended, S new tokens of a row, T own tokens of
a row so far, A heads, K heads of keys, G rows of the largest group, E features of a head, D features, V words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad as pad_in_front
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, Cache, DynamicCache, GenerationConfig, LogitsProcessorList
from transformers.generation import StoppingCriteriaList
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from marc.inference.prompts import pad_rows
from marc.model.attention import attention

DECODING_ATTENTION = "rows_behind_prefixes"
SPARE = 0.85
"""Rows that have ended leave the batch once no larger part of it is at work."""


class RowsBehindPrefixes:
    """Keys and values of prefixes, and of the rows behind them, which see their prefix and themselves.

    The keys of a prefix and of all its rows stand side by side, ``prefix | first tokens of all rows | second tokens of
    all rows | …``, so that a layer attends to all of them in one product: each key is read once for all rows of its
    prefix, which is what decoding costs. A mask keeps rows apart.

    Args:
        cache: What a model kept of the prefixes, padded at their ends.
        lengths: Tokens of each prefix, at least one.
        owners: The prefix of each row, ascending.
        room: Most own tokens of a row.
    """

    def __init__(self, cache: DynamicCache, lengths: Sequence[int], owners: Sequence[int], room: int) -> None:
        self._prefixes = [(layer.keys, layer.values) for layer in cache.layers]
        device = self._prefixes[0][0].device
        present = torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]
        self._prefix_bias = _bias(present, self._prefixes[0][0].dtype)
        self._room, self._time = room, 0
        self._own: dict[int, tuple[Tensor, ...]] = {}
        self._mask = torch.empty(len(owners), 0, dtype=torch.bool, device=device)
        self._arrange(torch.tensor(owners, device=device))

    def _arrange(self, owners: Tensor) -> None:
        """Gives each row a place beside its prefix: ``R x G`` places, some of them perhaps empty."""
        counts = torch.bincount(owners, minlength=len(self._prefix_bias))
        self._owners, self._group = owners, int(counts.max())
        within = torch.arange(len(owners), device=owners.device) - (counts.cumsum(0) - counts)[owners]
        self._places = owners * self._group + within
        self._rows = owners.new_zeros(len(counts) * self._group)
        self._rows[self._places] = torch.arange(len(owners), device=owners.device)
        taken = torch.zeros_like(self._rows, dtype=torch.bool).index_fill(0, self._places, True)
        self._taken = taken.view(-1, self._group)
        self._bias_RGX = self._seen(self._mask)

    def _seen(self, mask_NT: Tensor) -> Tensor:
        """Bias of all keys for the newest token of each place, ``[R, G, P + T * G]``."""
        own_RGT = self.side_by_side(mask_NT) & self._taken[..., None]
        itself = torch.eye(self._group, dtype=torch.bool, device=mask_NT.device)[:, None]
        own_RGX = (own_RGT[..., None] & itself).flatten(2)
        before = self._prefix_bias[:, None].expand(-1, self._group, -1)
        return torch.cat((before, _bias(own_RGX, before.dtype)), dim=2)

    def side_by_side(self, rows: Tensor) -> Tensor:
        """Rows beside their prefix, ``[N, …] -> [R, G, …]``; empty places hold anything."""
        return rows[self._rows].unflatten(0, (-1, self._group))

    def apart(self, places: Tensor) -> Tensor:
        """Undoes `side_by_side`."""
        return places.flatten(0, 1)[self._places]

    def add(self, mask_NS: Tensor) -> None:
        """Makes room for new tokens of every row; where the mask is False there is padding, in front."""
        self._time += mask_NS.shape[1]
        self._mask = torch.cat((self._mask, mask_NS), dim=1)
        new = self._seen(mask_NS)[..., self._prefix_bias.shape[1] :]
        self._bias_RGX = torch.cat((self._bias_RGX, new), dim=2)

    def bias(self, new: int) -> Tensor:
        """What is added to the scores of the newest tokens, ``[R, S * G, P + T * G]``."""
        bias_RGX = self._bias_RGX
        if new == 1:
            return bias_RGX
        own = torch.arange(self._time, device=bias_RGX.device).repeat_interleave(self._group)
        times = torch.cat((own.new_zeros(self._prefix_bias.shape[1]), own))
        later_SX = times > torch.arange(self._time - new, self._time, device=times.device)[:, None]
        return bias_RGX[:, None].masked_fill(later_SX[:, None], -torch.inf).flatten(1, 2)

    def extend(self, layer: int, key_NKSE: Tensor, value_NKSE: Tensor) -> tuple[Tensor, ...]:
        """Keeps a layer's newest keys and values, for which `add` made room; all of them ``[R, K, P + T * G, E]``."""
        if layer not in self._own:
            self._own[layer] = tuple(self._buffer(prefix) for prefix in self._prefixes[layer])
        end = self._prefix_bias.shape[1] + self._time * self._group
        start = end - key_NKSE.shape[2] * self._group
        for buffer, states in zip(self._own[layer], (key_NKSE, value_NKSE), strict=True):
            buffer[:, :, start:end] = self.side_by_side(states).permute(0, 2, 3, 1, 4).flatten(2, 3)
        return tuple(buffer[:, :, :end] for buffer in self._own[layer])

    def _buffer(self, prefix_RKPE: Tensor) -> Tensor:
        prefixes, heads, length, width = prefix_RKPE.shape
        buffer = prefix_RKPE.new_empty(prefixes, heads, length + self._room * self._group, width)
        buffer[:, :, :length] = prefix_RKPE
        return buffer

    def keep(self, rows_N: Tensor) -> None:
        """Drops all rows but some, and prefixes without any."""
        length, end = self._prefix_bias.shape[1], self._prefix_bias.shape[1] + self._time * self._group
        own = {
            layer: [buffer[:, :, length:end].unflatten(2, (-1, self._group)).permute(0, 3, 1, 2, 4) for buffer in both]
            for layer, both in self._own.items()
        }
        kept = {layer: [self.apart(states)[rows_N] for states in both] for layer, both in own.items()}
        needed, owners = self._owners[rows_N].unique(return_inverse=True)
        self._prefixes = [(keys[needed], values[needed]) for keys, values in self._prefixes]
        self._prefix_bias, self._mask = self._prefix_bias[needed], self._mask[rows_N]
        self._arrange(owners)
        self._own = {}
        for layer, both in kept.items():
            self.extend(layer, *both)


def _bias(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where something is seen, else minus infinity."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)


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
    count, heads, new, width = query.shape
    groups = key.shape[1]
    keys, values = rows.extend(layer, key, value)
    query_RGKHSE = rows.side_by_side(query.unflatten(1, (groups, -1)))
    query_RKXE = query_RGKHSE.permute(0, 2, 3, 4, 1, 5).flatten(2, 4)  # heads, then times, then rows of a prefix
    bias = rows.bias(new)[:, None].expand(-1, heads // groups, -1, -1).flatten(1, 2)[:, None]
    mixed_RKXE = scaled_dot_product_attention(query_RKXE, keys, values, attn_mask=bias, scale=scaling)
    mixed_RKHSGE = mixed_RKXE.unflatten(2, (heads // groups, new, -1))
    mixed = rows.apart(mixed_RKHSGE.permute(0, 4, 3, 1, 2, 5))
    return mixed.reshape(count, new, heads, width), None


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
    noise: Noise,
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
        noise: Decides what is drawn where the configuration says that it is sampled.
        past_key_values: Not used: keys and values are the prompts'.

    Returns:
        ``[B, L + C]``: prompts and completions, these padded at their ends.
    """
    text, head, device = model.model.language_model, model.get_output_embeddings(), input_ids.device
    pad = int(generation_config._pad_token_tensor)
    longest = max(map(len, prompts.rests))
    steps = int(stopping_criteria.max_length or 0) - input_ids.shape[1]
    rows = RowsBehindPrefixes(prompts.cache, prompts.lengths, prompts.owners, longest + steps)
    tokens = pad_rows(prompts.rests, 0, left=True).to(device)
    mask = pad_rows([[1] * len(rest) for rest in prompts.rests], 0, left=True).bool().to(device)
    positions = torch.stack([pad_in_front(own, (longest - own.shape[1], 0)) for own in prompts.positions], dim=1)
    sequences, places = input_ids, torch.arange(len(input_ids), device=device)  # of the rows that are in the batch
    at_work = torch.ones_like(places, dtype=torch.bool)
    with attention(text.config, DECODING_ATTENTION), torch.inference_mode():
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
            if generation_config.do_sample:
                drawn_N = draw_tokens(scores_NV, noise(scores_NV)[places])
            else:
                drawn_N = scores_NV.argmax(-1)
            drawn_N = drawn_N.masked_fill(~at_work, pad)
            column = torch.full_like(sequences[:, :1], pad).index_put((places,), drawn_N[:, None])
            sequences = torch.cat((sequences, column), dim=1)
            at_work = at_work & ~stopping_criteria(sequences[places], scores_NV)
            positions = positions[..., -1:] + 1
            if 0 < at_work.float().mean() <= SPARE:
                rows.keep(at_work)
                places, drawn_N, positions, at_work = (
                    places[at_work],
                    drawn_N[at_work],
                    positions[:, at_work],
                    at_work[at_work],
                )
            tokens, mask = drawn_N[:, None], torch.ones_like(drawn_N[:, None], dtype=torch.bool)
    return sequences.clone()


Noise = Callable[[Tensor], Tensor]
"""Gives exponential noise for the next token of every row, ``[B, V]``, like some scores ``[N, V]``."""


def fresh_noise(rows: int, generator: torch.Generator | None = None) -> Noise:
    """Noise for so many rows, whichever of them are still at work."""

    def draw(scores_NV: Tensor) -> Tensor:
        return scores_NV.new_empty(rows, scores_NV.shape[1]).exponential_(generator=generator)

    return draw


def draw_tokens(scores_NV: Tensor, noise_NV: Tensor) -> Tensor:
    """Draws a token of each row in proportion to ``exp(scores)``, ``int64 [N]``, as ``torch.multinomial`` does.

    ``argmax_v p_v / e_v`` with ``e_v`` exponential is v with probability ``p_v``.

    Args:
        scores_NV: Minus infinity where a token is never drawn.
        noise_NV: Exponential noise.
    """
    return (scores_NV.softmax(-1) / noise_NV).argmax(-1)
