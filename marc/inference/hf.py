"""Outputs for prompts about encoded videos, with two things that make more than one of them cheap.

*One prefix.* Prompts about one video begin with the same tokens, the video's among them: these are read once, and
their keys and values serve every prompt.

*One graph.* With keys and values in tensors of fixed size and place, transformers compiles the decoding step and, on a
GPU, captures it as a CUDA graph. The tensors are kept from call to call, one set for each number of prompts, which is
rounded up to a power of two, and only a few lengths exist, so that a graph is made once, not once per question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BatchFeature, Cache, CompileConfig, DynamicCache, LogitsProcessorList, StaticCache

from marc.inference.stages import FirstToken, StageClock
from marc.model.qwen2_5_vl.modeling import CompressedVideoFeatures, MarcForConditionalGeneration
from marc.model.qwen2_5_vl.processing import MarcProcessor
from marc.types import FRAMES_PER_GRID, GenerationOptions, VideoInfo

_Row = TypeVar("_Row")

STATIC_LENGTHS = 256
"""Static keys and values have room for a multiple of so many tokens."""


@dataclass(frozen=True)
class EncodedVideo:
    """What the model reads of a video, ready for any number of questions.

    Attributes:
        info: The file.
        seconds: ``float64 [T]``: times of the frames that were read.
        grid_thw: Temporal grids, height and width in patches.
        grid_events: Event id of each temporal grid, if any were given.
        shares: Tokens of each event, if any were given.
        members: ``int64 [G]``: the merged frame in which each temporal grid ended.
        features: ``[N, D]``, the visual tokens.
        tokens_before: Number of visual tokens without compression.
    """

    info: VideoInfo
    seconds: NDArray[np.float64]
    grid_thw: torch.Tensor
    grid_events: tuple[int, ...] | None
    shares: tuple[int, ...] | None
    members: NDArray[np.int64]
    features: torch.Tensor
    tokens_before: int

    @property
    def tokens_after(self) -> int:
        """Number of visual tokens that the language model reads."""
        return len(self.features)


@dataclass(frozen=True)
class _Static:
    room: int
    cache: StaticCache


@dataclass
class VideoGenerator:
    """Generates outputs.

    Attributes:
        model: Does it.
        processor: Its processor.
        compile_config: How transformers compiles the decoding step with static keys and values; ``None``: its default.
    """

    model: MarcForConditionalGeneration
    processor: MarcProcessor
    compile_config: CompileConfig | None = None
    _static: dict[int, _Static] = field(default_factory=dict, init=False, repr=False)

    @torch.no_grad()
    def __call__(
        self,
        chats: Sequence[str],
        videos: Sequence[EncodedVideo],
        options: GenerationOptions,
        clock: StageClock | None = None,
    ) -> list[str]:
        """One output per chat, in one generation.

        Args:
            chats: From `MarcProcessor.apply_chat_template`, each with one video placeholder.
            videos: What each is about. If all are about the same, its features and what the chats begin with are read
                once.
            options: How to generate.
            clock: Is told what tokenising, prefill and decoding took.
        """
        clock, asked = clock or StageClock(self.model.device), len(chats)
        if options.static:
            chats, videos = _up_to_a_power_of_two(chats), _up_to_a_power_of_two(videos)
        with clock.stage("tokenize"):
            inputs = self._inputs(chats, videos)
        first = FirstToken(clock)
        sampling = {"temperature": options.temperature, "top_p": options.top_p} if options.temperature else {}
        torch.manual_seed(options.seed)
        start = clock.now()
        rows, length = inputs["input_ids"].shape
        cache = self._cache(rows, length + options.max_new_tokens, options.static)
        if len(videos) > 1 and all(video is videos[0] for video in videos):
            inputs = self._read_prefix(inputs, cache)
        tokens = self.model.generate(
            **inputs,
            past_key_values=cache,
            logits_processor=LogitsProcessorList([first]),
            max_new_tokens=options.max_new_tokens,
            do_sample=bool(options.temperature),
            compile_config=self.compile_config,
            **sampling,
        )
        end = clock.now()
        assert first.reached is not None
        clock.seconds["prefill"] += first.reached - start
        clock.seconds["decode"] += end - first.reached
        answers = tokens[:asked, inputs["input_ids"].shape[1] :]
        return self.processor.batch_decode(answers, skip_special_tokens=True)

    def _inputs(self, chats: Sequence[str], videos: Sequence[EncodedVideo]) -> BatchFeature:
        inputs = self.processor.text_inputs(chats, [video.tokens_after for video in videos])
        inputs.update(
            self.processor.planning_inputs(
                [video.grid_events or [0] * int(video.grid_thw[0, 0]) for video in videos],
                [video.seconds[::FRAMES_PER_GRID].tolist() for video in videos],
                [video.shares for video in videos],
            )
        )
        inputs["video_grid_thw"] = torch.cat([video.grid_thw for video in videos])
        inputs = inputs.to(self.model.device)
        features = tuple(video.features for video in videos)
        inputs["mm_encoder_outputs"] = {"video": CompressedVideoFeatures(pooler_output=features)}
        return inputs

    def _cache(self, rows: int, tokens: int, static: bool) -> Cache:
        """An empty cache; a static one is that of the last call with so many rows, if it has the room."""
        config = self.model.config.get_text_config(decoder=True)
        if not static:
            return DynamicCache(config=config)
        if "flash" in (config._attn_implementation or ""):
            raise ValueError(
                "static keys and values are for one compiled graph, which flash-attention breaks; generate without "
                "them, or load the model with attn_implementation='sdpa'"
            )
        room = ceil(tokens / STATIC_LENGTHS) * STATIC_LENGTHS
        if rows not in self._static or self._static[rows].room < room:
            self._static[rows] = _Static(room, StaticCache(config=config, max_cache_len=room))
        self._static[rows].cache.reset()
        return self._static[rows].cache

    def _read_prefix(self, inputs: BatchFeature, cache: Cache) -> dict[str, torch.Tensor]:
        """Reads what all rows begin with, once, into the cache of every row.

        Returns:
            The rows with their padding moved behind what is read already; padding has no position, so that the rest
            follows as it does in a row of its own.
        """
        ids, present = inputs["input_ids"], inputs["attention_mask"].bool()
        rows = [row[own] for row, own in zip(ids, present, strict=True)]
        shortest = min(map(len, rows))
        alike = (torch.stack([row[:shortest] for row in rows]) == rows[0][:shortest]).all(0)
        length = min(int(alike.int().cumprod(0).sum()), shortest - 1)
        prefix = torch.arange(length, device=ids.device) + (~present).sum(1, keepdim=True)
        assert self.model.config.video_token_id not in rows[0][length:]
        once = DynamicCache(config=self.model.config.get_text_config(decoder=True))
        features = inputs["mm_encoder_outputs"]["video"].pooler_output[:1]
        self.model.model(
            input_ids=rows[0][None, :length],
            mm_token_type_ids=inputs["mm_token_type_ids"][:1, prefix[0]],
            mm_encoder_outputs={"video": CompressedVideoFeatures(pooler_output=features)},
            past_key_values=once,
            use_cache=True,
            **{name: values[:1] for name, values in inputs.items() if name.startswith("video_")},
        )
        for index, layer in enumerate(once.layers):
            shape = (len(rows), -1, -1, -1)
            cache.update(layer.keys.expand(shape), layer.values.expand(shape), index)
        moved = torch.ones_like(present).scatter(1, prefix, False)
        return {
            name: torch.cat([inputs[name].gather(1, prefix), inputs[name][moved].unflatten(0, (len(rows), -1))], dim=1)
            for name in ("input_ids", "attention_mask")
        }


def _up_to_a_power_of_two(rows: Sequence[_Row]) -> Sequence[_Row]:
    """The rows, the last one so often again that only a few numbers of rows exist."""
    return [*rows, *[rows[-1]] * ((1 << (len(rows) - 1).bit_length()) - len(rows))]
