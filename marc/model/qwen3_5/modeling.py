"""Qwen3.5 with compressed videos: timestamps in the prompt, recurrent layers."""

from __future__ import annotations

from transformers import Qwen3_5ForConditionalGeneration, Qwen3_5Model

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


load_weights_as(MarcQwen35Model, Qwen3_5Model)
load_weights_as(MarcQwen35ForConditionalGeneration, Qwen3_5ForConditionalGeneration)
