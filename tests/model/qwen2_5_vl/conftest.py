"""These tests are about one family."""

import pytest
from tiny_models import builder
from tiny_models import stock as stock


@pytest.fixture(scope="session")
def tiny():
    return builder("qwen2_5_vl")
