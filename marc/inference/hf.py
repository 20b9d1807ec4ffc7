"""The engine of transformers: outputs for prompts about encoded videos, with two things that make many of them cheap.

*One prefix.* What several prompts begin with, a video's tokens among it, is read and kept once
(`marc.inference.decoding`): questions about one video share its tokens, sampled answers to one prompt the whole of it.

*One graph.* With keys and values in tensors of fixed size and place, transformers compiles the decoding step and, on a
GPU, captures it as a CUDA graph. The tensors are kept from call to call, one set for each number of prompts, which is
rounded up to a power of two, and only a few lengths exist, so that a graph is made once, not once per question.

`complete` is the only place that calls ``generate``: the assistant, the evaluation, the teacher and the rollouts of
training all answer through it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache, CompileConfig, DynamicCache, LogitsProcessorList, StaticCache, StoppingCriteriaList

from marc.compression import CompressionConfig
from marc.inference.decoding import (
    UNWARPED,
    Draw,
    GreedyDraw,
    SharedPrompts,
    as_transformers_takes,
    decode_rows,
    drawn_apart,
    drawn_as_transformers_does,
    ends_of,
)
from marc.inference.encoding import encode
from marc.inference.listening import Listener, ListeningRows
from marc.inference.prompts import Prompt, end_of_visuals, pad_rows
from marc.inference.stages import StageClock, prefill_and_decode
from marc.inference.thinking import GreedyOutput
from marc.inference.turns import HFTurns
from marc.inference.video_input import VideoInput, at_compression, feature_inputs, grid_inputs
from marc.io import sha256_tensors
from marc.model import CompressedProcessor, CompressedVLM
from marc.model.attention import why_not_shared
from marc.model.family import vision_token_ids
from marc.model.modeling import token_types
from marc.threads import threads_for
from marc.types import GenerationOptions

_Row = TypeVar("_Row")

STATIC_LENGTHS = 256
"""Static keys and values have room for a multiple of so many tokens."""


@dataclass(frozen=True)
class _Static:
    room: int
    cache: StaticCache


@dataclass
class HFBackend:
    """A `marc.inference.backend.Backend`: the model in this process.

    Attributes:
        model: Does it.
        processor: Its processor.
        compile_config: How transformers compiles the decoding step with static keys and values; ``None``: its default.
    """

    model: CompressedVLM
    processor: CompressedProcessor
    compile_config: CompileConfig | None = None
    _static: dict[int, _Static] = field(default_factory=dict, init=False, repr=False)

    @property
    def compression(self) -> CompressionConfig:
        """The budget at which videos are seen; assign to change it for what follows."""
        return self.model.compression

    @compression.setter
    def compression(self, value: CompressionConfig) -> None:
        self.model.compression = self.processor.compression = value

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def name(self) -> str:
        """Folder or hub name of the model's weights."""
        return str(self.model.name_or_path)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.model.dtype

    def fingerprint(self) -> str:
        """See `marc.inference.backend.Backend`."""
        return sha256_tensors(self.model.state_dict())

    @property
    def cannot(self) -> dict[str, str]:
        """What it cannot do."""
        if "flash" not in (self.config.get_text_config(decoder=True)._attn_implementation or ""):
            return {}
        return {
            "static": "static keys and values are for one compiled graph, which flash-attention breaks; generate "
            "without them, or load the model with attn_implementation='sdpa'"
        }

    @torch.no_grad()
    def encode(self, inputs: Sequence[VideoInput], clock: StageClock | None = None) -> None:
        """See `marc.inference.backend.Backend`."""
        clock = clock or StageClock(self.device)
        before, start = clock.seconds["vision_tower"], clock.now()
        with threads_for(self.model), clock.module("vision_tower", self.model.model.visual):
            features = encode(self.model, [each for each in inputs if each.features is None])
        in_tower = clock.seconds["vision_tower"] - before
        clock.seconds["compression"] += clock.now() - start - in_tower
        for each, values in features.items():
            each.features, each.patches.pixels = values, None

    def generate(
        self,
        prompts: Sequence[Prompt],
        options: GenerationOptions,
        clock: StageClock | None = None,
        listeners: Sequence[Listener] = (),
    ) -> list[list[int]]:
        """See `marc.inference.backend.Backend`."""
        if options.static and "static" in self.cannot:
            raise ValueError(self.cannot["static"])

        def outputs(rows: Sequence[int]) -> list[list[int]]:
            some, heard = [prompts[row] for row in rows], [listeners[row] for row in rows if listeners]
            torch.manual_seed(options.seed)
            with prefill_and_decode(clock or StageClock(self.device)) as first:
                return complete(
                    self.model,
                    _up_to_a_power_of_two(some) if options.static else some,
                    cache=self._static_cache if options.static else None,
                    listening=self._listening(heard, options),
                    logits_processor=LogitsProcessorList([first]),
                    compile_config=self.compile_config,
                    **as_transformers_takes(options),
                )[: len(some)]

        return _by_budget(prompts, outputs)

    def greedy(
        self, prompts: Sequence[Prompt], options: GenerationOptions, clock: StageClock | None = None
    ) -> list[GreedyOutput]:
        """See `marc.inference.backend.Backend`."""

        def outputs(rows: Sequence[int]) -> list[GreedyOutput]:
            draw = GreedyDraw(len(rows), options.think_below or 0.0, min(ends_of(self.model.generation_config)))
            with prefill_and_decode(clock or StageClock(self.device)) as first:
                tokens = complete(
                    self.model,
                    [prompts[row] for row in rows],
                    draw=draw,
                    logits_processor=LogitsProcessorList([first]),
                    max_new_tokens=options.max_new_tokens,
                    **UNWARPED,
                )
            return draw.outputs(tokens)

        return _by_budget(prompts, outputs)

    def sample(self, prompts: Sequence[Prompt], options: GenerationOptions, samples: int) -> list[list[list[int]]]:
        """See `marc.inference.backend.Backend`."""
        sampling: dict[str, Any] = {"temperature": options.temperature, "top_p": options.top_p, "top_k": 0}

        def outputs(rows: Sequence[int]) -> list[list[list[int]]]:
            seeded = [torch.Generator(self.device).manual_seed(options.seed) for _ in rows]
            tokens = complete(
                self.model,
                [prompts[row] for row in rows for _ in range(samples)],
                draw=drawn_apart([(samples, drawn_as_transformers_does(samples, each)) for each in seeded]),
                max_new_tokens=options.max_new_tokens,
                do_sample=bool(options.temperature),
                repetition_penalty=1.0,
                suppress_tokens=vision_token_ids(self.processor.tokenizer),
                synced_gpus=False,  # processes that share the weights out may have other prompts, or none
                **(sampling if options.temperature else {}),
            )
            return [tokens[start : start + samples] for start in range(0, len(tokens), samples)]

        return _by_budget(prompts, outputs)

    def converse(self) -> HFTurns:
        """See `marc.inference.backend.Backend`."""
        return HFTurns(self.model, self.processor)

    def _listening(self, listeners: Sequence[Listener], options: GenerationOptions) -> ListeningRows | None:
        if not listeners:
            return None
        others = len(_up_to_a_power_of_two(listeners)) - len(listeners) if options.static else 0
        rows = [*listeners, *[Listener(is_left=True)] * others]
        return ListeningRows(self.processor.tokenizer, rows, ends_of(self.model.generation_config))

    def _static_cache(self, rows: int, tokens: int) -> StaticCache:
        """An empty cache: that of the last call with so many rows, if it has the room."""
        room = ceil(tokens / STATIC_LENGTHS) * STATIC_LENGTHS
        if rows not in self._static or self._static[rows].room < room:
            config = self.config.get_text_config(decoder=True)
            self._static[rows] = _Static(room, StaticCache(config=config, max_cache_len=room))
        self._static[rows].cache.reset()
        return self._static[rows].cache


def _by_budget(prompts: Sequence[Prompt], outputs: Callable[[Sequence[int]], Sequence[_Row]]) -> list[_Row]:
    """What the prompts come to, those of one budget together.

    Args:
        prompts: Any; those without a video go with the first that has one.
        outputs: Of the prompts of these numbers.
    """
    first = next((prompt.compression for prompt in prompts if prompt.compression), None)
    together: dict[CompressionConfig | None, list[int]] = defaultdict(list)
    for row, prompt in enumerate(prompts):
        together[prompt.compression or first].append(row)
    found = {row: each for rows in together.values() for row, each in zip(rows, outputs(rows), strict=True)}
    return [found[row] for row in range(len(prompts))]


@torch.no_grad()
def complete(
    model: CompressedVLM,
    prompts: Sequence[Prompt],
    *,
    features: Mapping[VideoInput, Tensor] | None = None,
    cache: Callable[[int, int], Cache] | None = None,
    share: bool = True,
    draw: Draw | None = None,
    listening: ListeningRows | None = None,
    **generation: Any,
) -> list[list[int]]:
    """Token ids of one output per prompt, the token that ends it included.

    Args:
        model: Without wrappers.
        prompts: What it is asked, at one budget.
        features: Of what the prompts show; None: the inputs' own.
        cache: Makes a cache for so many rows of so many tokens, instead of transformers' own.
        share: Read and keep once what prompts begin with alike; not together with ``cache``.
        draw: Samples the tokens, where ``share`` is possible; None: those that transformers would.
        listening: The listeners to the outputs.
        **generation: As ``generate`` takes it.
    """
    if features is None:
        features = {each: each.features for prompt in prompts for each in prompt.inputs if each.features is not None}
    budgets = {prompt.compression for prompt in prompts if prompt.compression}
    assert len(budgets) <= 1, "one generation has one budget"
    with threads_for(model), at_compression(model, next(iter(budgets), None) or model.compression):
        share = share and cache is None
        groups = _groups(model, prompts) if share else []
        assert share or draw is None, "transformers draws by itself where prompts may not share"
        if not groups or (len(prompts) == 1 and draw is None):
            return _complete_alone(model, prompts, features, cache, {**generation, **_heard(listening)})
        heard = _heard(listening.in_order(_order(groups)) if listening else None)
        return _complete_together(model, prompts, groups, features, draw, {**generation, **heard})


def _complete_alone(
    model: CompressedVLM,
    prompts: Sequence[Prompt],
    features: Mapping[VideoInput, Tensor],
    cache: Callable[[int, int], Cache] | None,
    generation: Mapping[str, Any],
) -> list[list[int]]:
    """Every prompt as a row of its own, as transformers generates."""
    batch = _Batch.of(model, prompts, left=True)
    rows, length = batch.ids.shape
    made = cache(rows, length + generation["max_new_tokens"]) if cache else None
    tokens = model.generate(
        **batch.inputs(model, features),
        **({"past_key_values": made} if made else {}),
        **generation,
    )
    return _completions(tokens[:, length:], model, generation)


def _complete_together(
    model: CompressedVLM,
    prompts: Sequence[Prompt],
    groups: Sequence[_Group],
    features: Mapping[VideoInput, Tensor],
    draw: Draw | None,
    generation: Mapping[str, Any],
) -> list[list[int]]:
    """What the prompts of a group begin with is read once for all of them."""
    order = _order(groups)
    batch = _Batch.of(model, [prompts[row] for row in order], left=True)
    shared = _read_prefixes(model, batch, groups, features)
    own, places = draw or drawn_as_transformers_does(len(prompts)), torch.tensor(order, device=model.device)
    tokens = model.generate(
        input_ids=batch.ids,
        attention_mask=batch.present,
        position_ids=batch.present.cumsum(1) - 1,
        custom_generate=partial(
            decode_rows,
            prompts=shared,
            draw=lambda scores, rows: own(scores, places[rows]),
            streamer=generation.get("streamer"),
        ),
        **generation,
    )
    outputs = _completions(tokens[:, batch.ids.shape[1] :], model, generation)
    return [output for _, output in sorted(zip(order, outputs, strict=True), key=lambda pair: pair[0])]


def _heard(listening: ListeningRows | None) -> dict[str, Any]:
    """How ``generate`` is told of listeners."""
    return {"streamer": listening, "stopping_criteria": StoppingCriteriaList([listening.stop])} if listening else {}


@dataclass(frozen=True)
class _Group:
    """Rows that begin alike, and how many tokens of theirs are."""

    rows: list[int]
    length: int


def _order(groups: Sequence[_Group]) -> list[int]:
    """The rows, group by group."""
    return [row for group in groups for row in group.rows]


def _groups(model: Any, prompts: Sequence[Prompt]) -> list[_Group]:
    """Equal prompts, or those about the same visuals, whichever saves more; one token of each stays, if it can.

    Where each row needs a copy of what it shares, equal prompts alone.
    """
    expanded = {prompt: prompt.expanded(model) for prompt in dict.fromkeys(prompts)}
    equal, about_the_same = defaultdict(list), defaultdict(list)
    for row, prompt in enumerate(prompts):
        equal[prompt].append(row)
        ids = expanded[prompt]
        visual = tuple(ids[: end_of_visuals(ids, model)])
        about_the_same[(prompt.inputs, visual) if visual else prompt].append(row)
    ways = [
        [_Group(rows, _alike([expanded[prompts[row]] for row in rows])) for rows in way.values()]
        for way in ((equal,) if why_not_shared(model.model.language_model) else (equal, about_the_same))
    ]
    if any(group.length < 1 for way in ways for group in way):
        return []
    saved = [sum(group.length * (len(group.rows) - 1) for group in way) for way in ways]
    return ways[saved.index(max(saved))]


def _alike(rows: Sequence[Sequence[int]]) -> int:
    """Number of tokens that rows begin with alike, leaving each at least one."""
    alike = next((place for place, tokens in enumerate(zip(*rows, strict=False)) if len(set(tokens)) > 1), None)
    shortest = min(map(len, rows))
    return min(shortest if alike is None else alike, shortest - 1)


@dataclass(frozen=True)
class _Batch:
    """Prompts as padded rows, ``[B, L]``.

    Attributes:
        prompts: The prompts.
        ids: Token ids.
        present: 1 where there is a token.
    """

    prompts: Sequence[Prompt]
    ids: Tensor
    present: Tensor

    @classmethod
    def of(cls, model: Any, prompts: Sequence[Prompt], *, left: bool) -> _Batch:
        expanded = {prompt: prompt.expanded(model) for prompt in dict.fromkeys(prompts)}
        rows = [expanded[prompt] for prompt in prompts]
        pad = model.generation_config.pad_token_id or 0
        ids = pad_rows(rows, pad, left=left).to(model.device)
        present = pad_rows([[1] * len(row) for row in rows], 0, left=left).to(model.device)
        return cls(prompts, ids, present)

    def inputs(self, model: Any, features: Mapping[VideoInput, Tensor]) -> dict[str, Any]:
        """What the model takes."""
        rows = [prompt.inputs for prompt in self.prompts]
        inputs: dict[str, Any] = {"input_ids": self.ids, "attention_mask": self.present}
        if grids := grid_inputs(rows):
            inputs |= {name: value.to(model.device) for name, value in grids.items()}
            inputs["mm_token_type_ids"] = token_types(self.ids, model)
            inputs["mm_encoder_outputs"] = feature_inputs(rows, features)
        return inputs


def _read_prefixes(
    model: CompressedVLM, batch: _Batch, groups: Sequence[_Group], features: Mapping[VideoInput, Tensor]
) -> SharedPrompts:
    """Reads what each group begins with, once.

    Args:
        model: Reads.
        batch: The rows of the groups, group by group, padded in front.
        groups: How many rows are whose, and how much of these is alike.
        features: Of what the prompts show.
    """
    owners = [index for index, group in enumerate(groups) for _ in group.rows]
    leaders = [owners.index(index) for index in range(len(groups))]
    lengths = [group.length for group in groups]
    tokens, positions = _tokens_and_positions(model, batch)
    prefixes = [(tokens[row][:n], positions[row][:, :n]) for row, n in zip(leaders, lengths, strict=True)]
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    front = why_not_shared(model.model.language_model) is not None
    present = pad_rows([[1] * n for n in lengths], 0, left=front).to(model.device)
    shown = [batch.prompts[row].inputs for row in leaders]
    model.model(
        input_ids=pad_rows([ids for ids, _ in prefixes], 0, left=front).to(model.device),
        attention_mask=present,
        position_ids=pad_sequence(
            [places.T for _, places in prefixes], batch_first=True, padding_side="left" if front else "right"
        ).permute(2, 0, 1),
        past_key_values=cache,
        use_cache=True,
        **({"mm_encoder_outputs": feature_inputs(shown, features)} if any(shown) else {}),
    )
    return SharedPrompts(
        cache,
        present,
        owners,
        [ids[lengths[owner] :] for ids, owner in zip(tokens, owners, strict=True)],
        [places[:, lengths[owner] :] for places, owner in zip(positions, owners, strict=True)],
    )


def _tokens_and_positions(model: CompressedVLM, batch: _Batch) -> tuple[list[list[int]], list[Tensor]]:
    """Token ids of every row, and their M-RoPE positions ``int64 [3, n]``, each row read by itself."""
    distinct = {prompt: index for index, prompt in enumerate(dict.fromkeys(batch.prompts))}
    some = _Batch.of(model, list(distinct), left=False)
    grids = {name: value.to(model.device) for name, value in grid_inputs([p.inputs for p in distinct]).items()}
    places, _ = model.model.get_rope_index(
        some.ids, token_types(some.ids, model), attention_mask=some.present, **grids
    )
    lengths = some.present.sum(1).tolist()
    rows = [distinct[prompt] for prompt in batch.prompts]
    tokens = some.ids.tolist()
    return [tokens[row][: lengths[row]] for row in rows], [places[:, row, : lengths[row]] for row in rows]


def _completions(tokens: Tensor, model: Any, generation: Mapping[str, Any]) -> list[list[int]]:
    """Rows up to the token that ends them, that one included."""
    ends = ends_of(generation.get("generation_config") or model.generation_config)
    rows = []
    for row in tokens.tolist():
        end = next((place for place, token in enumerate(row) if token in ends), len(row) - 1)
        rows.append(row[: end + 1])
    return rows


def _up_to_a_power_of_two(rows: Sequence[_Row]) -> Sequence[_Row]:
    """The rows, the last one so often again that only a few numbers of rows exist."""
    return [*rows, *[rows[-1]] * ((1 << (len(rows) - 1).bit_length()) - len(rows))]
