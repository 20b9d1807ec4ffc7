"""The tiny flavour of the real classes, and transformers' own."""

from collections.abc import Callable

import pytest
from tiny_inputs import PIXELS
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from marc.model import CompressionConfig, MarcForConditionalGeneration, MarcProcessor
from marc.model.tiny import build_tiny


@pytest.fixture(scope="session")
def tiny() -> Callable[..., tuple[MarcForConditionalGeneration, MarcProcessor]]:
    """Builds a tiny model; keyword arguments are fields of `CompressionConfig`."""

    def build(**compression):
        return build_tiny(compression=CompressionConfig(**compression), max_pixels=PIXELS)

    return build


@pytest.fixture(scope="session")
def stock(tiny) -> Qwen2_5_VLForConditionalGeneration:
    """Transformers' own class with the weights of the tiny model."""
    model, _ = tiny()
    values = {k: v for k, v in model.config.to_dict().items() if k not in ("compression", "model_type")}
    stock = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**values)).eval()
    stock.load_state_dict(model.state_dict())
    stock.generation_config = model.generation_config
    return stock
