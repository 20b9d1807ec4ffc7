from types import SimpleNamespace

import pytest

from marc.model import CompressionConfig
from marc.model.tiny import build_tiny
from marc.training.checks import check_tower_parts


@pytest.mark.parametrize(("stage", "layer"), [(3, None), (2, 1), (None, 1)])
def test_what_deepspeed_can_follow(stage, layer):
    check_tower_parts(*with_tower_layer(layer), deepspeed(stage))


def test_zero3_cannot_follow_a_tower_in_parts():
    with pytest.raises(ValueError, match="tower_layer"):
        check_tower_parts(*with_tower_layer(1), deepspeed(3))


def with_tower_layer(layer: int | None) -> tuple:
    return build_tiny(compression=CompressionConfig(tower_layer=layer))[1:]


def deepspeed(stage: int | None) -> SimpleNamespace:
    return SimpleNamespace(deepspeed_plugin=None if stage is None else SimpleNamespace(zero_stage=stage))
