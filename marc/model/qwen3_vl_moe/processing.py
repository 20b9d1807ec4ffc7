"""The processor of Qwen3-VL with a mixture of experts, which is Qwen3-VL's."""

from marc.model.qwen3_vl.processing import MarcQwen3VLProcessor


class MarcQwen3VLMoeProcessor(MarcQwen3VLProcessor):
    """Turns text, images and videos into inputs for `MarcQwen3VLMoeForConditionalGeneration`."""
