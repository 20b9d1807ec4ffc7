"""The tiny flavour of the real classes, and transformers' own."""

import pytest
from tiny_models import tiny as tiny
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration


@pytest.fixture(scope="session")
def stock(tiny) -> Qwen2_5_VLForConditionalGeneration:
    """Transformers' own class with the weights of the tiny model."""
    model, _ = tiny()
    values = {
        k: v for k, v in model.config.to_dict().items() if k not in ("compression", "model_type", "text_after_video")
    }
    stock = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**values)).eval()
    stock.load_state_dict(model.state_dict())
    stock.generation_config = model.generation_config
    return stock
