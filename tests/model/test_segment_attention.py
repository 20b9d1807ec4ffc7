"""Segments as batches: transformers' own loop over the segments is the oracle, to the bit on a CPU."""

import copy

import pytest
import torch
from tiny_inputs import noise, video_inputs
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from marc.model.segment_attention import SEGMENT_ATTENTION, segment_attention


@pytest.mark.parametrize("lengths", [[4, 4, 4], [7], [4, 2, 4, 2, 1], [1, 9, 1]])
def test_equals_one_call_per_segment(lengths):
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(1, 3, sum(lengths), 8, generator=generator, requires_grad=True) for _ in range(3)]
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    got, _ = segment_attention(
        torch.nn.Module(), *states, None, cu_seq_lens_q=bounds, max_length_q=max(lengths), scaling=0.3
    )
    slices = zip(*(state.split(lengths, dim=2) for state in states), strict=True)
    expected = torch.cat(
        [sdpa_attention_forward(torch.nn.Module(), *own, None, scaling=0.3, is_causal=False)[0] for own in slices], 1
    )
    assert torch.equal(got, expected)
    weights = torch.randn(got.shape, generator=generator)
    ours = torch.autograd.grad((got * weights).sum(), states)
    theirs = torch.autograd.grad((expected * weights).sum(), states)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_places_are_found_once_for_boundaries_that_layers_share(monkeypatch):
    states, bounds = torch.randn(1, 3, 6, 8), torch.tensor([0, 4, 6], dtype=torch.int32)
    layer = {"cu_seq_lens_q": bounds, "max_length_q": 4, "scaling": 0.3}
    first, _ = segment_attention(torch.nn.Module(), states, states, states, None, **layer)
    monkeypatch.setattr(torch.Tensor, "unique", lambda *_: pytest.fail("the lengths were looked at again"))
    second, _ = segment_attention(torch.nn.Module(), states, states, states, None, **layer)
    assert torch.equal(first, second)


def test_the_tower_has_few_calls_and_the_same_numbers(tiny, stock, monkeypatch):
    model, processor = tiny()
    inputs = video_inputs(processor, ["<video><video>"], [noise(16, 1), noise(6, 2, height=70, width=42)])
    assert model.model.visual.config._attn_implementation == SEGMENT_ATTENTION
    assert stock.model.visual.config._attn_implementation == "sdpa"
    pixels, grid_thw = inputs["pixel_values_videos"], inputs["video_grid_thw"]
    with torch.no_grad():
        expected = stock.model.visual(pixels, grid_thw=grid_thw).pooler_output
        calls = []

        def count(module, *args, **kwargs):
            calls.append(args[0].shape)
            return sdpa_attention_forward(module, *args, **kwargs)

        monkeypatch.setattr("marc.model.segment_attention.sdpa_attention_forward", count)
        got = model.model.visual(pixels, grid_thw=grid_thw).pooler_output
    assert torch.equal(got, expected)
    assert len(calls) <= 2 * 4, "a call per length and block"


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_another_implementation_can_be_asked_for(tiny, implementation):
    model, _ = tiny()
    before = model.model.visual.config._attn_implementation
    model.set_attn_implementation(implementation)
    assert model.model.visual.config._attn_implementation == implementation
    model.set_attn_implementation({"": "sdpa", "vision_config": before})
    assert model.model.visual.config._attn_implementation == before


@pytest.mark.parametrize("copied", [False, True])
def test_a_model_is_made_from_the_configuration_of_another(tiny, copied):
    model, _ = tiny()
    other = type(model)(copy.deepcopy(model.config) if copied else model.config)
    for each in (model, other):
        assert each.model.visual.config._attn_implementation == SEGMENT_ATTENTION
