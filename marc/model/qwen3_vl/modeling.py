"""Qwen3-VL with compressed videos: timestamps in the prompt, features for several layers (DeepStack)."""

from __future__ import annotations

from torch import nn
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLModel, Qwen3VLPreTrainedModel

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

    def __init__(self, config: MarcQwen3VLConfig):
        # Not the direct base's __init__, which names its inner model's class.
        Qwen3VLPreTrainedModel.__init__(self, config)
        self.model = MarcQwen3VLModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()


load_weights_as(MarcQwen3VLModel, Qwen3VLModel)
load_weights_as(MarcQwen3VLForConditionalGeneration, Qwen3VLForConditionalGeneration)
