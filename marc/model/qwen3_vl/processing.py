"""Qwen3-VL's processor with compressed videos."""

from transformers import Qwen3VLProcessor

from marc.model.timestamps import TimestampedProcessor


class MarcQwen3VLProcessor(TimestampedProcessor, Qwen3VLProcessor):
    """Turns text, images and videos into inputs for `MarcQwen3VLForConditionalGeneration`."""
