"""The tiny model with random weights and any compression: a fixture for several folders' ``conftest.py``."""

from collections.abc import Callable

import pytest
from tiny_inputs import PIXELS

from marc.model import CompressionConfig, MarcForConditionalGeneration, MarcProcessor
from marc.model.tiny import build_tiny


@pytest.fixture(scope="session")
def tiny() -> Callable[..., tuple[MarcForConditionalGeneration, MarcProcessor]]:
    """Builds a tiny model; all but the first keyword argument are fields of `CompressionConfig`."""

    def build(text_after_video="published", **compression):
        model, processor = build_tiny(compression=CompressionConfig(**compression), max_pixels=PIXELS)
        model.config.text_after_video = text_after_video
        return model, processor

    return build
