"""Qwen3.5's processor with compressed videos; its checkpoints name Qwen3-VL's."""

from transformers import Qwen3VLProcessor

from marc.model.timestamps import TimestampedProcessor


class MarcQwen35Processor(TimestampedProcessor, Qwen3VLProcessor):
    """Turns text, images and videos into inputs for `MarcQwen35ForConditionalGeneration`."""
