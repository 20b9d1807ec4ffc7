"""The tiny flavour of Qwen3-VL (`marc.model.tiny`): the same classes at half a million parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from transformers import Qwen2Tokenizer, Qwen2VLImageProcessor, Qwen3VLVideoProcessor

from marc.compression.config import CompressionConfig
from marc.model.qwen2_5_vl.tiny_parts import (
    CHAT_TEMPLATE,
    FACTOR,
    MERGE,
    PATCH,
    build_tokenizer,
    frame_limits,
    random_model,
    text_token_ids,
    token_ids,
)
from marc.model.qwen3_vl.config import MarcQwen3VLConfig
from marc.model.qwen3_vl.modeling import MarcQwen3VLForConditionalGeneration
from marc.model.qwen3_vl.processing import MarcQwen3VLProcessor

MOST_FRAMES = 768
"""Frames that may have the largest size."""


def build_processor(
    tokenizer: Qwen2Tokenizer, compression: CompressionConfig | None = None, *, max_pixels: int | None = None
) -> MarcQwen3VLProcessor:
    """Builds the processor for patches of 7 pixels."""
    parts = picture_processors(max_pixels)
    return MarcQwen3VLProcessor(parts[0], tokenizer, parts[1], chat_template=CHAT_TEMPLATE, compression=compression)


def picture_processors(max_pixels: int | None) -> tuple[Qwen2VLImageProcessor, Qwen3VLVideoProcessor]:
    """What makes patches of images and of videos."""
    of_image = frame_limits(max_pixels)
    of_video = {"shortest_edge": FACTOR * FACTOR, "longest_edge": MOST_FRAMES * of_image["longest_edge"]}
    tokens = of_image["longest_edge"] // (FACTOR * FACTOR)
    return (
        Qwen2VLImageProcessor(patch_size=PATCH, merge_size=MERGE, size=of_image),
        Qwen3VLVideoProcessor(
            patch_size=PATCH, merge_size=MERGE, size=of_video, cap_pixels_per_frame=True, max_video_tokens=tokens
        ),
    )


def build_config(tokenizer: Qwen2Tokenizer, compression: CompressionConfig | None = None) -> MarcQwen3VLConfig:
    """The architecture: 3 text layers of width 128, 3 vision blocks of width 64, DeepStack after two of these."""
    return MarcQwen3VLConfig(**config_values(tokenizer), compression=compression)


def config_values(tokenizer: Qwen2Tokenizer, **text: Any) -> dict[str, Any]:
    """Fields of the configuration.

    Args:
        tokenizer: Its special tokens are the model's.
        **text: Further fields of the text configuration.
    """
    return {
        "text_config": {
            **text_token_ids(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 100.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            **text,
        },
        "vision_config": {
            "depth": 3,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "out_hidden_size": 128,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        **token_ids(tokenizer),
        "tie_word_embeddings": True,
    }


def build_tiny(
    *, seed: int, compression: CompressionConfig | None, corpus: Iterable[str], max_pixels: int | None
) -> tuple[MarcQwen3VLForConditionalGeneration, MarcQwen3VLProcessor]:
    """Builds the tiny model with random weights, and its processor; see `marc.model.tiny.build_tiny`."""
    tokenizer = build_tokenizer(corpus)
    config = build_config(tokenizer, compression)
    model = random_model(MarcQwen3VLForConditionalGeneration, config, tokenizer, seed)
    return model, build_processor(tokenizer, compression, max_pixels=max_pixels)
