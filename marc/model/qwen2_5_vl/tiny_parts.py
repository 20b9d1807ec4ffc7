"""What the tiny flavours of Qwen's families are built from (`marc.model.tiny`): tokenizer, chat template, sizes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AddedToken, Qwen2Tokenizer

_Model = TypeVar("_Model")

PATCH = 7
MERGE = 2
FACTOR = PATCH * MERGE
"""Frames are multiples of this many pixels."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The families' chat format, without a default system prompt."""

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""The families' special tokens that occur in a conversation."""


def build_tokenizer(corpus: Iterable[str] = (), *, vocab_size: int = 512) -> Qwen2Tokenizer:
    """Trains a byte-level BPE tokenizer with Qwen's special tokens.

    Args:
        corpus: Texts whose frequent words become single tokens; without any, every byte is a token.
        vocab_size: Upper limit on the vocabulary, special tokens included; at least 256 of it are bytes.
    """
    trainer = ByteLevelBPETokenizer()
    bytes_and_words = vocab_size - len(SPECIAL_TOKENS)
    trainer.train_from_iterator(corpus, vocab_size=bytes_and_words, min_frequency=2, show_progress=False)
    learned = json.loads(trainer.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"], merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    tokenizer.add_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    return tokenizer


def frame_limits(max_pixels: int | None) -> dict[str, int]:
    """``size`` of the picture processors.

    Args:
        max_pixels: Upper limit on a frame's pixels; ``None``: that of 2 x 2 tokens.
    """
    return {"shortest_edge": FACTOR * FACTOR, "longest_edge": max_pixels or 4 * FACTOR * FACTOR}


def token_ids(tokenizer: Qwen2Tokenizer) -> dict[str, Any]:
    """Fields of a configuration that name special tokens."""
    tokens = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    marks = {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    return {field: tokenizer.convert_tokens_to_ids(token) for field, token in (tokens | marks).items()}


def text_token_ids(tokenizer: Qwen2Tokenizer) -> dict[str, Any]:
    """Likewise of the language model's configuration."""
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def random_model(kind: Callable[[Any], _Model], config: Any, tokenizer: Qwen2Tokenizer, seed: int) -> _Model:
    """A model with random weights; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = kind(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    ready: _Model = model.eval()
    return ready
