"""Decoding of prompts that begin alike: what they share is read once and kept once.

Eight sampled answers to one prompt share the whole of it, questions about one video share its tokens. A *prefix* is
what some rows have in common; its keys and values stand once in memory, and the rows that go on behind it attend to
them together, in one product (`RowsBehindPrefixes`). Where layers have more than keys and values, recurrent states or
sliding windows, it is still read once, and each row goes on with a copy (`RowsWithCopies`). A row that has ended
leaves the batch. `decode_rows` is a decoding loop as ``generate(custom_generate=…)`` takes it: processors of logits,
stopping rules and sampling options are transformers'.

Shapes: R prefixes, P tokens of the longest, B rows, N rows that have not ended, S new tokens of a row, T own tokens of
a row so far, A heads, K heads of keys, G rows of the largest group, E features of a head, D features, V words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import pad as pad_in_front
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, Cache, DynamicCache, GenerationConfig, LogitsProcessorList
from transformers.generation import BaseStreamer, StoppingCriteriaList
from transformers.masking_utils import AttentionMaskInterface

from marc.inference.prompts import pad_rows
from marc.inference.thinking import GreedyOutput, probability_of
from marc.model.attention import attention, why_not_shared
from marc.types import GenerationOptions

DECODING_ATTENTION = "rows_behind_prefixes"
TOGETHER = 4
"""So many rows at most stand beside one copy of a short prefix."""
SPARE = 0.7
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
        # Tokens stand before heads, as they come: ``[R, P, K, E]``.
        self._prefixes = [(layer.keys.transpose(1, 2), layer.values.transpose(1, 2)) for layer in cache.layers]
        device = self._prefixes[0][0].device
        present = torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]
        self._prefix_bias = _bias(present, self._prefixes[0][0].dtype)
        self._room, self._time = room, 0
        self._own: dict[int, tuple[Tensor, ...]] = {}
        self._mask = torch.empty(len(owners), 0, dtype=torch.bool, device=device)
        owned = torch.tensor(owners, device=device)
        if max(lengths) <= room:
            owned = self._share_out(owned)
        self._arrange(owned)

    def _share_out(self, owners: Tensor) -> Tensor:
        """Gives a few rows a copy of their prefix, where that is no longer than what a row may add.

        Rows of one prefix are attended to as if all went on as long as the longest, and see nothing of each other.
        """
        counts = torch.bincount(owners)
        within = torch.arange(len(owners), device=owners.device) - (counts.cumsum(0) - counts)[owners]
        copies, shared_out = (owners * len(owners) + within // TOGETHER).unique(return_inverse=True)
        self._keep_prefixes(copies // len(owners))
        return shared_out

    def _keep_prefixes(self, prefixes: Tensor) -> None:
        self._prefixes = [(keys[prefixes], values[prefixes]) for keys, values in self._prefixes]
        self._prefix_bias = self._prefix_bias[prefixes]

    def _arrange(self, owners: Tensor) -> None:
        """Gives each row a place beside its prefix: ``R x G`` places, some of them perhaps empty."""
        counts = torch.bincount(owners, minlength=len(self._prefix_bias))
        self._owners, self._group = owners, int(counts.max())
        self._within = torch.arange(len(owners), device=owners.device) - (counts.cumsum(0) - counts)[owners]
        self._is_full = len(owners) == len(counts) * self._group
        self._rows = owners.new_zeros(len(counts), self._group)
        self._rows[owners, self._within] = torch.arange(len(owners), device=owners.device)
        self._taken = torch.zeros_like(self._rows, dtype=torch.bool)
        self._taken[owners, self._within] = True
        before = self._prefix_bias[:, None].expand(-1, self._group, -1)
        self._bias_RGX = torch.cat((before, self._own_bias(self._mask)), dim=2)
        self._stacked: Tensor | None = None
        self._next_RGG = self._own_bias(torch.ones_like(owners, dtype=torch.bool)[:, None])

    def _own_bias(self, mask_NT: Tensor) -> Tensor:
        """Bias of own keys for the newest token of each place, ``[R, G, T * G]``."""
        own_RGT = self.side_by_side(mask_NT) & self._taken[..., None]
        itself = torch.eye(self._group, dtype=torch.bool, device=mask_NT.device)[:, None]
        return _bias((own_RGT[..., None] & itself).flatten(2), self._prefix_bias.dtype)

    def side_by_side(self, rows: Tensor) -> Tensor:
        """Rows beside their prefix, ``[N, …] -> [R, G, …]``; empty places hold anything."""
        return rows.unflatten(0, self._rows.shape) if self._is_full else rows[self._rows]

    def apart(self, places: Tensor) -> Tensor:
        """Undoes `side_by_side`."""
        return places.flatten(0, 1) if self._is_full else places[self._owners, self._within]

    def add(self, mask_NS: Tensor | None = None) -> None:
        """Makes room for new tokens of every row.

        Args:
            mask_NS: Where it is False there is padding, in front; None: one token of each row.
        """
        new = 1 if mask_NS is None else mask_NS.shape[1]
        self._time += new
        self._stacked = None
        own = self._next_RGG if mask_NS is None else self._own_bias(mask_NS)
        mask_NS = self._mask.new_ones(len(self._owners), 1) if mask_NS is None else mask_NS
        self._mask = torch.cat((self._mask, mask_NS), dim=1)
        self._bias_RGX = torch.cat((self._bias_RGX, own), dim=2)

    def bias(self, new: int, copies: int) -> Tensor:
        """What is added to the scores of the newest tokens, ``[R, copies * S * G, P + T * G]``, for every layer.

        Args:
            new: S.
            copies: Query heads of each head of keys.
        """
        if self._stacked is None:
            once = self._newest_bias(new)
            self._stacked = once[:, None].expand(-1, copies, -1, -1).flatten(1, 2)
        return self._stacked

    def _newest_bias(self, new: int) -> Tensor:
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
        end, new = self._prefix_bias.shape[1] + self._time * self._group, key_NKSE.shape[2]
        for buffer, states in zip(self._own[layer], (key_NKSE, value_NKSE), strict=True):
            latest_RSGKE = buffer[:, end - new * self._group : end].unflatten(1, (new, self._group))
            latest_RSGKE.copy_(self.side_by_side(states.transpose(1, 2)).transpose(1, 2))
        return tuple(buffer[:, :end].transpose(1, 2) for buffer in self._own[layer])

    def _buffer(self, prefix_RPKE: Tensor) -> Tensor:
        prefixes, length, heads, width = prefix_RPKE.shape
        buffer = prefix_RPKE.new_empty(prefixes, length + self._room * self._group, heads, width)
        buffer[:, :length] = prefix_RPKE
        return buffer

    def read(self, text: Any, tokens_NS: Tensor, positions_3NS: Tensor, mask_NS: Tensor | None) -> Tensor:
        """Last hidden states of new tokens, ``[N, S, D]``; see `add` for the mask."""
        self.add(mask_NS)
        with attention(text.config, DECODING_ATTENTION):
            hidden: Tensor = text(
                inputs_embeds=text.get_input_embeddings()(tokens_NS),
                position_ids=positions_3NS,
                use_cache=False,
                rows=self,
            ).last_hidden_state
        return hidden

    def keep(self, rows_N: Tensor) -> None:
        """Drops all rows but some, and prefixes without any."""
        length, end = self._prefix_bias.shape[1], self._prefix_bias.shape[1] + self._time * self._group
        kept: dict[int, list[Tensor]] = {}
        for layer, both in self._own.items():
            own_RGTKE = (buffer[:, length:end].unflatten(1, (-1, self._group)).transpose(1, 2) for buffer in both)
            kept[layer] = [self.apart(states)[rows_N].transpose(1, 2) for states in own_RGTKE]
        needed, owners = self._owners[rows_N].unique(return_inverse=True)
        self._keep_prefixes(needed)
        self._mask = self._mask[rows_N]
        self._arrange(owners)
        self._own = {}
        for layer, (keys, values) in kept.items():
            self.extend(layer, keys, values)


class RowsWithCopies:
    """Rows that go on with a copy of their prefix each, for layers that keep more than keys and values.

    Args:
        cache: What a model kept of the prefixes, padded in front.
        present: 1 where these have a token, ``[R, P]``.
        owners: The prefix of each row.
    """

    def __init__(self, cache: DynamicCache, present: Tensor, owners: Sequence[int]) -> None:
        self._cache, self._present = cache, present
        self._choose(torch.tensor(owners, device=present.device))

    def _choose(self, rows: Tensor) -> None:
        self._cache.reorder_cache(rows)
        self._present = self._present[rows]

    def read(self, text: Any, tokens_NS: Tensor, positions_3NS: Tensor, mask_NS: Tensor | None) -> Tensor:
        """Last hidden states of new tokens, ``[N, S, D]``; where the mask is False there is padding, in front."""
        new = self._present.new_ones(tokens_NS.shape) if mask_NS is None else mask_NS.to(self._present)
        self._present = torch.cat((self._present, new), dim=1)
        hidden: Tensor = text(
            inputs_embeds=text.get_input_embeddings()(tokens_NS),
            position_ids=positions_3NS,
            attention_mask=self._present,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        return hidden

    def keep(self, rows_N: Tensor) -> None:
        """Drops all rows but some."""
        self._choose(rows_N.nonzero()[:, 0])


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
    query_RGSKHE = rows.side_by_side(query.transpose(1, 2)).unflatten(3, (groups, -1))
    query_RKXE = query_RGSKHE.permute(0, 3, 4, 2, 1, 5).flatten(2, 4)  # heads, then times, then rows of a prefix
    bias = rows.bias(new, heads // groups)[:, None]
    mixed_RKXE = scaled_dot_product_attention(query_RKXE, keys, values, attn_mask=bias, scale=scaling)
    mixed_RKHSGE = mixed_RKXE.unflatten(2, (heads // groups, new, -1))
    mixed = rows.apart(mixed_RKHSGE.permute(0, 4, 3, 1, 2, 5))
    return mixed.reshape(count, new, heads, width), None


AttentionInterface.register(DECODING_ATTENTION, decoding_attention)
AttentionMaskInterface.register(DECODING_ATTENTION, lambda *_, **__: None)


@dataclass(frozen=True)
class SharedPrompts:
    """Prompts whose prefixes a model has read.

    Attributes:
        cache: What the model kept of the prefixes.
        present: 1 where these have a token, ``[R, P]``: padded at their ends, or in front where rows have copies.
        owners: The prefix of each row, ascending.
        rests: Token ids of each row behind its prefix, at least one.
        positions: Of these, ``int64 [3, n]`` each.
        in_place: Keep what rows add in ``cache``, which then holds all but the last token of each.
    """

    cache: DynamicCache
    present: Tensor
    owners: Sequence[int]
    rests: Sequence[Sequence[int]]
    positions: Sequence[Tensor]
    in_place: bool = False

    def rows(self, text: Any, room: int) -> RowsBehindPrefixes | RowsWithCopies:
        """The rows behind the prefixes.

        Args:
            text: The language model.
            room: Most tokens of a row behind its prefix.
        """
        if self.in_place or why_not_shared(text):
            return RowsWithCopies(self.cache, self.present, self.owners)
        return RowsBehindPrefixes(self.cache, self.present.sum(1).tolist(), self.owners, room)

    def padded_rests(self, device: torch.device) -> tuple[Tensor, Tensor | None, Tensor]:
        """The rests, padded in front: ids ``[B, S]``, where there are any ``bool [B, S]``, positions ``[3, B, S]``."""
        longest = max(map(len, self.rests))
        present = pad_rows([[1] * len(rest) for rest in self.rests], 0, left=True).bool()
        places = [pad_in_front(own, (longest - own.shape[1], 0)) for own in self.positions]
        return pad_rows(self.rests, 0, left=True).to(device), present.to(device), torch.stack(places, dim=1)


def decode_rows(
    model: Any,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    *,
    prompts: SharedPrompts,
    draw: Draw,
    past_key_values: Cache | None = None,
    streamer: BaseStreamer | None = None,
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
        draw: Draws tokens where the configuration says so.
        past_key_values: Not used: keys and values are the prompts'.
        streamer: Is told the next token of each row, ``[B]``.

    Returns:
        ``[B, L + C]``: prompts and completions, these padded at their ends.
    """
    text, head = model.model.language_model, model.get_output_embeddings()
    pad, steps = int(generation_config._pad_token_tensor), int(stopping_criteria.max_length or 0) - input_ids.shape[1]
    tokens, mask, positions = prompts.padded_rests(input_ids.device)
    rows = prompts.rows(text, tokens.shape[1] + steps)
    sequences, places = input_ids, torch.arange(len(input_ids), device=input_ids.device)  # of the rows in the batch
    at_work = torch.ones_like(places, dtype=torch.bool)
    with torch.inference_mode():
        while at_work.any():
            hidden_ND = rows.read(text, tokens, positions, mask)[:, -1]
            scores_NV = logits_processor(sequences[places], head(hidden_ND).float())
            drawn_N = draw(scores_NV, places) if generation_config.do_sample else scores_NV.argmax(-1)
            drawn_N = drawn_N.masked_fill(~at_work, pad)
            column = torch.full_like(sequences[:, :1], pad).index_put((places,), drawn_N[:, None])
            sequences = torch.cat((sequences, column), dim=1)
            if streamer is not None:
                streamer.put(column[:, 0].cpu())
            at_work = at_work & ~stopping_criteria(sequences[places], scores_NV, rows=places)
            positions = positions[..., -1:] + 1
            if 0 < at_work.float().mean() <= SPARE:
                rows.keep(at_work)
                places, drawn_N, positions = places[at_work], drawn_N[at_work], positions[:, at_work]
                at_work = at_work[at_work]
            tokens, mask = drawn_N[:, None], None
    if streamer is not None:
        streamer.end()
    return sequences.clone()


def ends_of(config: GenerationConfig) -> frozenset[int]:
    """Tokens that end an output."""
    ends = config.eos_token_id
    return frozenset(ends if isinstance(ends, list) else [ends])


class Draw(Protocol):
    """Draws the next token of rows in proportion to ``exp(scores)``."""

    def __call__(self, scores_NV: Tensor, rows_N: Tensor) -> Tensor:
        """Tokens ``int64 [N]`` of the rows that have not ended; ``rows_N`` says which of all they are."""
        ...


def as_transformers_takes(options: GenerationOptions) -> dict[str, Any]:
    """What ``generate`` is told of options; what they leave open is the checkpoint's."""
    told: dict[str, Any] = {"max_new_tokens": options.max_new_tokens, "do_sample": bool(options.temperature)}
    if options.temperature:
        told |= {"temperature": options.temperature, "top_p": options.top_p}
    if options.repetition_penalty is not None:
        told["repetition_penalty"] = options.repetition_penalty
    return told


UNWARPED: Mapping[str, Any] = {
    "do_sample": True,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}
"""Options of ``generate`` by which a `Draw` gets the scores as they are, whatever a checkpoint's own sampling is."""


class GreedyDraw:
    """Takes the likeliest token and notes how likely it was, until a row is less probable than it may be.

    Such a row ends there: what follows could only lessen the product of its tokens' probabilities.

    Args:
        rows: How many there are.
        least: Least probability of a row.
        end: The token that takes the place of the one by which a row falls below that.
    """

    def __init__(self, rows: int, least: float, end: int) -> None:
        self._logprobs: list[list[float]] = [[] for _ in range(rows)]
        self._least, self._end = least, end

    def __call__(self, scores_NV: Tensor, rows_N: Tensor) -> Tensor:
        """See `Draw`; the scores are `UNWARPED` ones."""
        tokens_N1 = scores_NV.argmax(-1, keepdim=True)
        logprobs_N = scores_NV.log_softmax(-1).gather(1, tokens_N1)[:, 0]
        rows = [self._logprobs[row] for row in rows_N.tolist()]
        for row, logprob in zip(rows, logprobs_N.tolist(), strict=True):
            row.append(logprob)
        is_over = [probability_of(row) < self._least for row in rows]
        return tokens_N1[:, 0].masked_fill(torch.tensor(is_over, device=tokens_N1.device), self._end)

    def outputs(self, tokens: Sequence[Sequence[int]]) -> list[GreedyOutput]:
        """The rows, the token that ends each included, with what was noted of theirs."""
        pairs = zip(tokens, self._logprobs, strict=True)
        return [GreedyOutput(row, logprobs[: len(row)]) for row, logprobs in pairs]


def drawn_as_transformers_does(rows: int, generator: torch.Generator | None = None) -> Draw:
    """Draws what ``torch.multinomial`` would for so many rows: a random number for each word of each of them.

    ``argmax_v p_v / e_v`` with ``e_v`` exponential is v with probability ``p_v``.
    """

    def draw(scores_NV: Tensor, rows_N: Tensor) -> Tensor:
        noise_BV = scores_NV.new_empty(rows, scores_NV.shape[1]).exponential_(generator=generator)
        return (scores_NV.softmax(-1) / noise_BV[rows_N]).argmax(-1)

    return draw


def drawn_by_one_number(rows: int) -> Draw:
    """Draws by inverting the distribution: one random number a row, a tenth of the time on a CPU."""

    def draw(scores_NV: Tensor, rows_N: Tensor) -> Tensor:
        chances_B1 = torch.rand(rows, 1, dtype=torch.float64, device=scores_NV.device)
        cumulated_NV = scores_NV.softmax(-1).cumsum(-1, dtype=torch.float64)
        chosen_N1 = chances_B1[rows_N] * cumulated_NV[:, -1:]
        return torch.searchsorted(cumulated_NV, chosen_N1, right=True)[:, 0].clamp(max=scores_NV.shape[1] - 1)

    return draw


def drawn_apart(draws: Sequence[tuple[int, Draw]]) -> Draw:
    """Runs of rows, each of which draws for itself, so that none depends on what is beside it.

    Args:
        draws: Number of rows of each run, and how they draw.
    """

    def draw(scores_NV: Tensor, rows_N: Tensor) -> Tensor:
        tokens_N, first = scores_NV.new_empty(len(rows_N), dtype=torch.long), 0
        for rows, own in draws:
            mine = (rows_N >= first) & (rows_N < first + rows)
            if mine.any():
                tokens_N[mine] = own(scores_NV[mine], rows_N[mine] - first)
            first += rows
        return tokens_N

    return draw
