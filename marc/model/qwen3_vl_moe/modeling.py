"""Qwen3-VL with a mixture of experts and compressed videos: Qwen3-VL's ways, other layers."""

from __future__ import annotations

from torch import nn
from transformers import Qwen3VLMoeForConditionalGeneration, Qwen3VLMoeModel, Qwen3VLMoePreTrainedModel

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

    def __init__(self, config: MarcQwen3VLMoeConfig):
        # Not the direct base's __init__, which names its inner model's class.
        Qwen3VLMoePreTrainedModel.__init__(self, config)
        self.model = MarcQwen3VLMoeModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()


load_weights_as(MarcQwen3VLMoeModel, Qwen3VLMoeModel)
load_weights_as(MarcQwen3VLMoeForConditionalGeneration, Qwen3VLMoeForConditionalGeneration)
