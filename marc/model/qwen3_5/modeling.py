"""Qwen3.5 with compressed videos: timestamps in the prompt, recurrent layers."""

from __future__ import annotations

from torch import nn
from transformers import Qwen3_5ForConditionalGeneration, Qwen3_5Model, Qwen3_5PreTrainedModel

from marc.model.modeling import CompressedVLM, load_weights_as
from marc.model.qwen3_5.config import MarcQwen35Config
from marc.model.timestamps import TimestampedModel


class MarcQwen35Model(TimestampedModel, Qwen3_5Model):
    """Qwen3.5 without a head, with compressed videos."""

    config: MarcQwen35Config
    config_class = MarcQwen35Config


class MarcQwen35ForConditionalGeneration(CompressedVLM, Qwen3_5ForConditionalGeneration):
    """Qwen3.5 for video question answering from compressed videos; see `CompressedVLM`."""

    config: MarcQwen35Config
    config_class = MarcQwen35Config

    def __init__(self, config: MarcQwen35Config):
        # Not the direct base's __init__, which names its inner model's class.
        Qwen3_5PreTrainedModel.__init__(self, config)
        self.model = MarcQwen35Model(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()


load_weights_as(MarcQwen35Model, Qwen3_5Model)
load_weights_as(MarcQwen35ForConditionalGeneration, Qwen3_5ForConditionalGeneration)
