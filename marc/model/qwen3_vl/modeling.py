"""Qwen3-VL with compressed videos: timestamps in the prompt, features for several layers (DeepStack)."""

from __future__ import annotations

from transformers import Qwen3VLForConditionalGeneration, Qwen3VLModel

from marc.model.modeling import CompressedVLM, load_weights_as
from marc.model.qwen3_vl.config import MarcQwen3VLConfig
from marc.model.timestamps import TimestampedModel


class MarcQwen3VLModel(TimestampedModel, Qwen3VLModel):
    """Qwen3-VL without a head, with compressed videos."""

    config: MarcQwen3VLConfig
    config_class = MarcQwen3VLConfig


class MarcQwen3VLForConditionalGeneration(CompressedVLM, Qwen3VLForConditionalGeneration):
    """Qwen3-VL for video question answering from compressed videos; see `CompressedVLM`."""

    config: MarcQwen3VLConfig
    config_class = MarcQwen3VLConfig


load_weights_as(MarcQwen3VLModel, Qwen3VLModel)
load_weights_as(MarcQwen3VLForConditionalGeneration, Qwen3VLForConditionalGeneration)
