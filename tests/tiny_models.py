"""Tiny models with random weights and any compression, and transformers' own: for several folders' ``conftest.py``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_inputs import PIXELS

from marc.model import CompressedProcessor, CompressedVLM, CompressionConfig
from marc.model.family import families
from marc.model.tiny import EMBEDDED_FAMILY, build_tiny

FAMILIES = [family.name for family in families()]


def of(*names: str) -> pytest.MarkDecorator:
    """Runs a test of `tiny` on some families only."""
    return pytest.mark.parametrize("tiny", names, indirect=True)


def builder(family: str) -> Callable[..., tuple[CompressedVLM, CompressedProcessor]]:
    """Builds tiny models of a family; all but the first keyword argument are fields of `CompressionConfig`."""

    def build(text_after_video="published", **compression):
        model, processor = build_tiny(family=family, compression=CompressionConfig(**compression), max_pixels=PIXELS)
        if hasattr(model.config, "text_after_video"):
            model.config.text_after_video = text_after_video
        return model, processor

    return build


def each_with(name: str, first: Any, *others: Any) -> pytest.MarkDecorator:
    """Runs a test of `tiny` on all families with one value of a parameter, on the embedded model's with others too."""
    cases = [(family, first) for family in FAMILIES] + [(EMBEDDED_FAMILY, other) for other in others]
    return pytest.mark.parametrize(("tiny", name), cases, indirect=["tiny"])


@pytest.fixture(scope="session", params=FAMILIES)
def tiny(request) -> Callable[..., tuple[CompressedVLM, CompressedProcessor]]:
    """Builds tiny models of each family."""
    return builder(request.param)


@pytest.fixture(scope="session")
def stock(tiny) -> Any:
    """Transformers' own class with the weights of the tiny model."""
    return stock_model(tiny()[0])


def stock_model(ours: CompressedVLM) -> Any:
    """A model of transformers' own class with the configuration and the weights of one of ours."""
    theirs = ours.family.stock.load("config")
    known = set(theirs().to_dict()) - {"model_type"}
    config = theirs(**{key: value for key, value in ours.config.to_dict().items() if key in known})
    model = ours.family.stock.load("generator")(config).eval()
    model.load_state_dict(ours.state_dict())
    model.generation_config = ours.generation_config
    return model


def save_stock(folder: Path, ours: CompressedVLM, processor: CompressedProcessor) -> None:
    """Saves a checkpoint of transformers' own classes."""
    stock_model(ours).save_pretrained(folder)
    stock_processor(processor).save_pretrained(folder)


def make_loud(model: CompressedVLM) -> None:
    """DeepStack's earlier features outweigh the last ones, which random weights' own do not."""
    for number, merger in enumerate(model.model.visual.deepstack_merger_list):
        generator = torch.Generator().manual_seed(number)
        torch.nn.init.normal_(merger.linear_fc2.weight, std=10.0, generator=generator)


def feature_width(model: CompressedVLM) -> int:
    """Features of a visual token, all streams."""
    taps = getattr(model.config.vision_config, "deepstack_visual_indexes", ())
    return (1 + len(taps)) * int(model.config.text_config.hidden_size)


def stock_processor(ours: CompressedProcessor) -> Any:
    """A processor of transformers' own class with the parts of one of ours."""
    parts = (ours.image_processor, ours.tokenizer, ours.video_processor)
    return ours.family.stock.load("processor")(*parts, chat_template=ours.chat_template)
