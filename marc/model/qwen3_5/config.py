"""MarcQwen35Config: Qwen3.5's configuration with the fields of compressed videos."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from transformers import Qwen3_5Config

from marc.model.config import CompressedConfig


@strict
class MarcQwen35Config(Qwen3_5Config, CompressedConfig):
    """Qwen3.5's configuration with those of `CompressedConfig`."""

    model_type = "marc_qwen3_5"
