"""Counts against formulas written out by hand, for the true 3B and for what the code really runs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.architectures import ARCHITECTURES, build_config
from benchmarks.counters import (
    Ceilings,
    Product,
    Work,
    WorkCounter,
    _visible_share,
    count_language,
    count_vision,
    on_meta,
)
from marc.model import CompressionConfig, MarcForConditionalGeneration
from marc.model.tiny import build_tokenizer

GRID = (32, 16, 32)
TEXT_TOKENS = 120
EVENTS = [grid // 4 for grid in range(32)]


def true_size(name: str, compression: CompressionConfig | None = None):
    architecture = ARCHITECTURES[name]
    model_class = architecture.stock_model if compression is None else architecture.our_model
    return on_meta(model_class, build_config(architecture, build_tokenizer(), compression), torch.bfloat16)


def true_3b(compression: CompressionConfig | None = None):
    return true_size("3b", compression)


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
def prefill_of_one_frame() -> Work:
    return count_language(true_3b(), 128 + TEXT_TOKENS)[0]


def test_the_real_size():
    model = true_3b()
    vision, tokens = count_vision(model, GRID)
    assert tokens == 4096
    prefill, token = count_language(model, tokens + TEXT_TOKENS)
    assert vision.flops == pytest.approx(tower_flops([16384] * 32, last=16384), rel=1e-6)
    assert prefill.flops == pytest.approx(prefill_flops(4216), rel=1e-6)
    assert vision.flops == pytest.approx(21.0e12, rel=0.02)
    assert prefill.flops == pytest.approx(26.0e12, rel=0.01)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(3.755e9, rel=1e-3)
    weights = sum(p.nbytes for p in model.model.language_model.parameters())
    assert token.bytes == pytest.approx(weights + 36 * 2 * 256 * 2 * 4217, rel=0.01), "weights and cache, read once"


@pytest.mark.parametrize(
    ("name", "parameters"), [("qwen3-vl-2b", 2.1275e9), ("qwen3-vl-4b", 4.4378e9), ("qwen3-vl-8b", 8.7671e9)]
)
def test_qwen3_vl_has_its_published_number_of_parameters(name: str, parameters: float):
    assert sum(weight.numel() for weight in true_size(name).parameters()) == pytest.approx(parameters, rel=1e-4)


def test_the_real_size_of_qwen3_vl():
    """Linear layers, attention within a grid, patches in; four mergers out, of which DeepStack's are three."""
    model = true_size("qwen3-vl-2b")
    vision, tokens = count_vision(model, GRID)
    width, inner, patches, cells = 1024, 4096, 16384, 4096
    block = 2 * patches * (4 * width**2 + 2 * width * inner) + 4 * patches * 512 * width
    mergers = 4 * 2 * cells * (4096 * 4096 + 4096 * 2048)
    assert tokens == cells
    assert vision.flops == pytest.approx(24 * block + 2 * patches * 1536 * width + mergers, rel=1e-6)
    prompt = 4390
    prefill, token = count_language(model, prompt)
    width, inner, heads = 2048, 6144, 2048
    linear = 2 * (2 * width * heads + 2 * width * 1024 + 3 * width * inner)
    attention, head = 4 * heads * prompt * (prompt + 1) / 2, 2 * width * 151936
    assert prefill.flops == pytest.approx(28 * (prompt * linear + attention) + head, rel=1e-6)
    assert token.flops == pytest.approx(28 * (linear + 4 * heads * (prompt + 1)) + head, rel=1e-6)


@pytest.mark.parametrize(
    ("tower_layer", "tera_flops", "patches_after"),
    [(None, 22.4, None), ({8: 4}, 8.6, (8, 4)), (8, 7.1, (8, 1)), (4, 4.6, (4, 1))],
)
def test_merging_saves_what_it_should(tower_layer, tera_flops, patches_after, prefill_of_one_frame):
    compression = CompressionConfig(layout="frames", tower_layer=tower_layer, duplicates=None)
    vision, tokens = count_vision(true_3b(compression), GRID, events=EVENTS)
    assert tokens == 128
    assert (vision + prefill_of_one_frame).flops == pytest.approx(tera_flops * 1e12, rel=0.02)
    layer, frames = patches_after or (32, 32)
    patches = [16384] * layer + [512 * frames] * (32 - layer)
    expected = tower_flops(patches, last=512 * frames)
    assert vision.flops == pytest.approx(expected, rel=0.003), "the merge itself costs next to nothing"
    assert vision.flops >= expected
    assert prefill_of_one_frame.flops == pytest.approx(prefill_flops(248), rel=1e-6)


@pytest.mark.parametrize("name", ["scaled", "scaled-qwen3-vl"])
def test_the_same_as_when_it_really_runs(name: str):
    """On shapes alone, in a real forward by our counter, and in one by torch's: the same operations."""
    architecture = ARCHITECTURES[name]
    config = build_config(
        architecture, build_tokenizer(), CompressionConfig(layout="events", tower_layer=2, duplicates=None)
    )
    grid, events = (8, 8, 16), [0, 0, 0, 1, 1, 2, 2, 2]
    on_shapes, tokens = count_vision(on_meta(architecture.our_model, config, torch.float32), grid, events=events)
    model = architecture.our_model._from_config(config, attn_implementation="eager").eval()
    pixels = torch.randn(8 * 8 * 16, 3 * 2 * architecture.vision["patch_size"] ** 2)

    def see() -> int:
        with torch.no_grad():
            planning = {"video_grid_events": torch.tensor([events])}
            features = model.model.get_video_features(pixels, torch.tensor([grid]), **planning)
        return sum(map(len, features.pooler_output))

    with FlopCounterMode(display=False) as really:
        assert see() == tokens
    assert on_shapes.flops == really.get_total_flops()
    model.set_attn_implementation("sdpa")
    with WorkCounter().only_in(model.model.visual) as counter:
        see()
    assert 0.98 * on_shapes.flops < counter.work.flops < on_shapes.flops, "all but the merge itself"


def test_equal_frames_are_counted_once():
    architecture = ARCHITECTURES["scaled"]
    config = build_config(architecture, build_tokenizer(), CompressionConfig(layout="frames"))
    model = MarcForConditionalGeneration._from_config(config).eval()
    pixels = torch.randn(1, 8 * 16, 3 * 2 * 14 * 14).expand(8, -1, -1).flatten(0, 1)
    works = []
    for grid in ((8, 8, 16), (1, 8, 16)):
        with WorkCounter().only_in(model.model.visual) as counter, torch.no_grad():
            model.model.get_video_features(pixels[: grid[0] * 8 * 16], torch.tensor([grid]))
        works.append(counter.work.flops)
    assert works[0] == works[1] > 0


@pytest.mark.parametrize(("queries", "keys"), [(1, 7), (5, 5), (3, 8)])
def test_a_causal_mask_counts_what_is_visible(queries: int, keys: int):
    visible = torch.ones(queries, keys).tril(diagonal=keys - queries)
    assert _visible_share(queries, keys) == pytest.approx(float(visible.mean()))


def test_the_limit_is_the_slower_of_the_two():
    ceilings = Ceilings(flops=100.0, bandwidth=10.0)
    work = Work((Product(200.0, 1.0), Product(1.0, 30.0))) + Work((Product(0.0, 0.0),))
    assert work.seconds(ceilings) == pytest.approx(2.0 + 3.0)
    assert (work.flops, work.bytes) == (201.0, 31.0)
