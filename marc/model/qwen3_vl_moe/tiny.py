"""The tiny flavour of Qwen3-VL with a mixture of experts (`marc.model.tiny`): four experts in two of three layers."""

from __future__ import annotations

from collections.abc import Iterable

from marc.compression.config import CompressionConfig
from marc.model.qwen2_5_vl.tiny_parts import CHAT_TEMPLATE, build_tokenizer, random_model
from marc.model.qwen3_vl.tiny import config_values, picture_processors
from marc.model.qwen3_vl_moe.config import MarcQwen3VLMoeConfig
from marc.model.qwen3_vl_moe.modeling import MarcQwen3VLMoeForConditionalGeneration
from marc.model.qwen3_vl_moe.processing import MarcQwen3VLMoeProcessor

EXPERTS = {"moe_intermediate_size": 48, "num_experts": 4, "num_experts_per_tok": 2, "mlp_only_layers": [0]}


def build_tiny(
    *, seed: int, compression: CompressionConfig | None, corpus: Iterable[str], max_pixels: int | None
) -> tuple[MarcQwen3VLMoeForConditionalGeneration, MarcQwen3VLMoeProcessor]:
    """Builds the tiny model with random weights, and its processor; see `marc.model.tiny.build_tiny`."""
    tokenizer = build_tokenizer(corpus)
    config = MarcQwen3VLMoeConfig(**config_values(tokenizer, **EXPERTS), compression=compression)
    model = random_model(MarcQwen3VLMoeForConditionalGeneration, config, tokenizer, seed)
    images, videos = picture_processors(max_pixels)
    processor = MarcQwen3VLMoeProcessor(
        images, tokenizer, videos, chat_template=CHAT_TEMPLATE, compression=compression
    )
    return model, processor
