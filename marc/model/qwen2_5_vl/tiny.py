"""The tiny flavour of Qwen2.5-VL (`marc.model.tiny`): the same classes at half a million parameters."""

from __future__ import annotations

import json
from collections.abc import Iterable

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AddedToken, Qwen2Tokenizer, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

from marc.compression.config import CompressionConfig
from marc.model.qwen2_5_vl.config import MarcConfig
from marc.model.qwen2_5_vl.modeling import MarcForConditionalGeneration
from marc.model.qwen2_5_vl.processing import MarcProcessor

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
"""Qwen2.5-VL's chat format, without its default system prompt."""

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
"""Qwen2.5-VL's special tokens that occur in a conversation."""


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


def build_processor(
    tokenizer: Qwen2Tokenizer | None = None,
    compression: CompressionConfig | None = None,
    *,
    max_pixels: int | None = None,
) -> MarcProcessor:
    """Builds the processor for patches of 7 pixels.

    Args:
        tokenizer: From `build_tokenizer`.
        compression: Must be the model's.
        max_pixels: Upper limit on a frame's pixels; ``None``: that of 2 x 2 tokens.
    """
    size = {"shortest_edge": FACTOR * FACTOR, "longest_edge": max_pixels or 4 * FACTOR * FACTOR}
    return MarcProcessor(
        Qwen2VLImageProcessor(patch_size=PATCH, merge_size=MERGE, size=size),
        tokenizer or build_tokenizer(),
        Qwen2VLVideoProcessor(patch_size=PATCH, merge_size=MERGE, size=size, cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
        compression=compression,
    )


def build_config(tokenizer: Qwen2Tokenizer, compression: CompressionConfig | None = None) -> MarcConfig:
    """The architecture: 3 text layers of width 128, 2 vision blocks of width 64 with windowed and full attention."""
    token_id = tokenizer.convert_tokens_to_ids
    return MarcConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [6, 5, 5]},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "window_size": 2 * FACTOR,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 128,
            "tokens_per_second": 2,
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
        compression=compression,
    )


def build_tiny(
    *, seed: int, compression: CompressionConfig | None, corpus: Iterable[str], max_pixels: int | None
) -> tuple[MarcForConditionalGeneration, MarcProcessor]:
    """Builds the tiny model with random weights, and its processor; see `marc.model.tiny.build_tiny`."""
    tokenizer = build_tokenizer(corpus)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MarcForConditionalGeneration(build_config(tokenizer, compression)).eval()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, build_processor(tokenizer, compression, max_pixels=max_pixels)
