"""Counts against formulas written out by hand, for the true 3B and for what the code really runs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLForConditionalGeneration

from marc.efficiency.architectures import ARCHITECTURES, build_config
from marc.efficiency.counters import Ceilings, Product, Work, count_language, count_vision, on_meta
from marc.model import CompressionConfig, MarcForConditionalGeneration
from marc.model.tiny import build_tokenizer

GRID = (32, 16, 32)
TEXT_TOKENS = 120
EVENTS = [grid // 4 for grid in range(32)]


def counted(compression: CompressionConfig | None, name: str = "3b"):
    """Work of the tower with its merges and of the prefill, for 64 frames of 128 tokens."""
    model_class = Qwen2_5_VLForConditionalGeneration if compression is None else MarcForConditionalGeneration
    model = on_meta(model_class, build_config(ARCHITECTURES[name], build_tokenizer(), compression), torch.bfloat16)
    vision, tokens = count_vision(model, GRID, events=None if compression is None else EVENTS)
    return vision, *count_language(model, tokens + TEXT_TOKENS), tokens


def tower_flops(patches_by_block: list[int], *, last: int) -> float:
    """The 3B's tower: linear layers of its blocks, attention in windows of 64 or over 512, patches in, tokens out."""
    width, inner, full = 1280, 3420, (7, 15, 23, 31)
    total = 2.0 * patches_by_block[0] * 1176 * width + 2 * last / 4 * (5120 * 5120 + 5120 * 2048)
    for block, patches in enumerate(patches_by_block):
        total += 2 * patches * (4 * width**2 + 3 * width * inner)
        total += 4 * patches * (512 if block in full else 64) * width
    return total


def prefill_flops(tokens: int) -> float:
    """The 3B's language model, with attention to what lies before, and the logits of the last token."""
    width, inner, vocabulary, layers, key_value = 2048, 11008, 151936, 36, 256
    linear = 2 * (2 * width * width + 2 * width * key_value + 3 * width * inner)
    return layers * (tokens * linear + 4 * width * tokens * (tokens + 1) / 2) + 2 * width * vocabulary


@pytest.fixture(scope="module")
def stock():
    return counted(None)


def test_the_real_size(stock):
    vision, prefill, token, tokens = stock
    assert tokens == 4096
    assert vision.flops == pytest.approx(tower_flops([16384] * 32, last=16384), rel=1e-6)
    assert prefill.flops == pytest.approx(prefill_flops(4216), rel=1e-6)
    assert vision.flops == pytest.approx(21.0e12, rel=0.02)
    assert prefill.flops == pytest.approx(26.0e12, rel=0.01)
    model = on_meta(
        Qwen2_5_VLForConditionalGeneration, build_config(ARCHITECTURES["3b"], build_tokenizer()), torch.bfloat16
    )
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(3.755e9, rel=1e-3)
    weights = sum(p.nbytes for p in model.model.language_model.parameters())
    assert token.bytes == pytest.approx(weights + 36 * 2 * 256 * 2 * 4217, rel=0.01), "weights and cache, read once"


@pytest.mark.parametrize(
    ("tower_layer", "tera_flops", "patches_after"),
    [(None, 22.4, None), ({8: 4}, 8.6, (8, 4)), (8, 7.1, (8, 1)), (4, 4.6, (4, 1))],
)
def test_merging_saves_what_it_should(tower_layer, tera_flops, patches_after):
    vision, prefill, _, tokens = counted(CompressionConfig(layout="frames", tower_layer=tower_layer))
    assert tokens == 128
    assert (vision + prefill).flops == pytest.approx(tera_flops * 1e12, rel=0.02)
    layer, frames = patches_after or (32, 32)
    patches = [16384] * layer + [512 * frames] * (32 - layer)
    expected = tower_flops(patches, last=512 * frames)
    assert vision.flops == pytest.approx(expected, rel=0.003), "the merge itself costs next to nothing"
    assert vision.flops >= expected
    assert prefill.flops == pytest.approx(prefill_flops(248), rel=1e-6)


def test_the_same_as_when_it_really_runs():
    """The counter on shapes alone and torch's counter on a real forward see the same linear layers."""
    architecture = ARCHITECTURES["scaled"]
    config = build_config(architecture, build_tokenizer(), CompressionConfig(layout="events", tower_layer=2))
    grid, events = (8, 8, 16), [0, 0, 0, 1, 1, 2, 2, 2]
    on_shapes, tokens = count_vision(on_meta(MarcForConditionalGeneration, config, torch.float32), grid, events=events)
    model = MarcForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    pixels = torch.randn(8 * 8 * 16, 3 * 2 * 14 * 14)
    with torch.no_grad(), FlopCounterMode(display=False) as really:
        features = model.model.get_video_features(
            pixels, torch.tensor([grid]), video_grid_events=torch.tensor([events])
        )
    assert sum(map(len, features.pooler_output)) == tokens
    assert on_shapes.flops == really.get_total_flops()


def test_the_limit_is_the_slower_of_the_two():
    ceilings = Ceilings(flops=100.0, bandwidth=10.0)
    work = Work((Product(200.0, 1.0), Product(1.0, 30.0))) + Work((Product(0.0, 0.0),))
    assert work.seconds(ceilings) == pytest.approx(2.0 + 3.0)
    assert (work.flops, work.bytes) == (201.0, 31.0)
