"""The tiny flavour of Qwen3.5 (`marc.model.tiny`): the same classes at half a million parameters."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import Qwen2Tokenizer

from marc.compression.config import CompressionConfig
from marc.model.qwen2_5_vl.tiny_parts import (
    CHAT_TEMPLATE,
    MERGE,
    PATCH,
    build_tokenizer,
    random_model,
    text_token_ids,
    token_ids,
)
from marc.model.qwen3_5.config import MarcQwen35Config
from marc.model.qwen3_5.modeling import MarcQwen35ForConditionalGeneration
from marc.model.qwen3_5.processing import MarcQwen35Processor
from marc.model.qwen3_vl.tiny import picture_processors


def build_config(tokenizer: Qwen2Tokenizer, compression: CompressionConfig | None = None) -> MarcQwen35Config:
    """The architecture: 4 text layers of width 128, the last with full attention, 2 vision blocks of width 64."""
    return MarcQwen35Config(
        text_config={
            **text_token_ids(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 192,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_num_key_heads": 4,
            "linear_num_value_heads": 8,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 100.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "out_hidden_size": 128,
            "num_position_embeddings": 64,
        },
        **token_ids(tokenizer),
        tie_word_embeddings=True,
        compression=compression,
    )


def build_tiny(
    *, seed: int, compression: CompressionConfig | None, corpus: Iterable[str], max_pixels: int | None
) -> tuple[MarcQwen35ForConditionalGeneration, MarcQwen35Processor]:
    """Builds the tiny model with random weights, and its processor; see `marc.model.tiny.build_tiny`."""
    tokenizer = build_tokenizer(corpus)
    config = build_config(tokenizer, compression)
    model = random_model(MarcQwen35ForConditionalGeneration, config, tokenizer, seed)
    images, videos = picture_processors(max_pixels)
    processor = MarcQwen35Processor(images, tokenizer, videos, chat_template=CHAT_TEMPLATE, compression=compression)
    return model, processor
