"""MarcConfig: Qwen2.5-VL's configuration with the fields of compressed videos."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from transformers import Qwen2_5_VLConfig

from marc.model.config import CompressedConfig


@strict
class MarcConfig(Qwen2_5_VLConfig, CompressedConfig):
    """Qwen2.5-VL's configuration with those of `CompressedConfig`."""

    model_type = "marc"
