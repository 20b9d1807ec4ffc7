"""The tiny model with random weights and any compression: a fixture for several folders' ``conftest.py``."""

from collections.abc import Callable

import pytest
from tiny_inputs import PIXELS

from marc.model import CompressionConfig, MarcForConditionalGeneration, MarcProcessor
from marc.model.tiny import build_tiny


@pytest.fixture(scope="session")
def tiny() -> Callable[..., tuple[MarcForConditionalGeneration, MarcProcessor]]:
    """Builds a tiny model; keyword arguments are fields of `CompressionConfig`."""

    def build(**compression):
        return build_tiny(compression=CompressionConfig(**compression), max_pixels=PIXELS)

    return build
