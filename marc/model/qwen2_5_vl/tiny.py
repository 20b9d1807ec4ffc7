"""The tiny flavour of Qwen2.5-VL (`marc.model.tiny`): the same classes at half a million parameters."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import Qwen2Tokenizer, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

from marc.compression.config import CompressionConfig
from marc.model.qwen2_5_vl.config import MarcConfig
from marc.model.qwen2_5_vl.modeling import MarcForConditionalGeneration
from marc.model.qwen2_5_vl.processing import MarcProcessor
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
    size = frame_limits(max_pixels)
    return MarcProcessor(
        Qwen2VLImageProcessor(patch_size=PATCH, merge_size=MERGE, size=size),
        tokenizer or build_tokenizer(),
        Qwen2VLVideoProcessor(patch_size=PATCH, merge_size=MERGE, size=size, cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
        compression=compression,
    )


def build_config(tokenizer: Qwen2Tokenizer, compression: CompressionConfig | None = None) -> MarcConfig:
    """The architecture: 3 text layers of width 128, 2 vision blocks of width 64 with windowed and full attention."""
    return MarcConfig(
        text_config={
            **text_token_ids(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [6, 5, 5]},
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
        **token_ids(tokenizer),
        tie_word_embeddings=True,
        compression=compression,
    )


def build_tiny(
    *, seed: int, compression: CompressionConfig | None, corpus: Iterable[str], max_pixels: int | None
) -> tuple[MarcForConditionalGeneration, MarcProcessor]:
    """Builds the tiny model with random weights, and its processor; see `marc.model.tiny.build_tiny`."""
    tokenizer = build_tokenizer(corpus)
    model = random_model(MarcForConditionalGeneration, build_config(tokenizer, compression), tokenizer, seed)
    return model, build_processor(tokenizer, compression, max_pixels=max_pixels)
