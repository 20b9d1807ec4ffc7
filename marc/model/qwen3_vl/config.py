"""MarcQwen3VLConfig: Qwen3-VL's configuration with the fields of compressed videos."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from transformers import Qwen3VLConfig

from marc.model.config import CompressedConfig


@strict
class MarcQwen3VLConfig(Qwen3VLConfig, CompressedConfig):
    """Qwen3-VL's configuration with those of `CompressedConfig`."""

    model_type = "marc_qwen3_vl"
