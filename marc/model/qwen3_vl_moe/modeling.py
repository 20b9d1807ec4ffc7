"""Qwen3-VL with a mixture of experts and compressed videos: Qwen3-VL's ways, other layers."""

from __future__ import annotations

from transformers import Qwen3VLMoeForConditionalGeneration, Qwen3VLMoeModel

from marc.model.modeling import CompressedVLM, load_weights_as
from marc.model.qwen3_vl_moe.config import MarcQwen3VLMoeConfig
from marc.model.timestamps import TimestampedModel


class MarcQwen3VLMoeModel(TimestampedModel, Qwen3VLMoeModel):
    """Qwen3-VL-MoE without a head, with compressed videos."""

    config: MarcQwen3VLMoeConfig
    config_class = MarcQwen3VLMoeConfig


class MarcQwen3VLMoeForConditionalGeneration(CompressedVLM, Qwen3VLMoeForConditionalGeneration):
    """Qwen3-VL-MoE for video question answering from compressed videos; see `CompressedVLM`."""

    config: MarcQwen3VLMoeConfig
    config_class = MarcQwen3VLMoeConfig


load_weights_as(MarcQwen3VLMoeModel, Qwen3VLMoeModel)
load_weights_as(MarcQwen3VLMoeForConditionalGeneration, Qwen3VLMoeForConditionalGeneration)
