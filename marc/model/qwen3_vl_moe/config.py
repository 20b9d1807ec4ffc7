"""MarcQwen3VLMoeConfig: Qwen3-VL-MoE's configuration with the fields of compressed videos."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from transformers import Qwen3VLMoeConfig

from marc.model.config import CompressedConfig


@strict
class MarcQwen3VLMoeConfig(Qwen3VLMoeConfig, CompressedConfig):
    """Qwen3-VL-MoE's configuration with those of `CompressedConfig`."""

    model_type = "marc_qwen3_vl_moe"
