"""Layouts that are rules from the literature: one result whatever the way to it, and what the tower tells them."""

from contextlib import contextmanager
from copy import copy
from unittest import mock

import pytest
import torch
from tiny_inputs import answered, first_logits, noise, video_inputs
from tiny_models import of
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from marc.compression.rivals.rule import RULES
from marc.model.qwen2_5_vl.vision import tower_with_attention

EVENTS = [[0, 0, 0, 1, 1, 2, 2, 2]]
SECONDS = [[0.0, 1.0, 2.0, 30.0, 31.0, 90.0, 91.0, 92.0]]
EVERY_RULE = pytest.mark.parametrize("rule", RULES)


@of("qwen2_5_vl")
def test_all_tokens_of_a_rule_are_the_whole_video(tiny):
    """As many tokens as there are, at the places and times that they have without compression."""
    (whole, processor), (model, own) = tiny(target_frames=None), tiny(layout="random", visual_tokens=8 * 16)
    for seconds in (SECONDS, None):
        expected = video_inputs(processor, ["<video> What?"], [noise(16, 4)], video_seconds=seconds)
        inputs = video_inputs(own, ["<video> What?"], [noise(16, 4)], video_seconds=seconds)
        assert torch.equal(inputs["input_ids"], expected["input_ids"])
        assert torch.equal(first_logits(model, inputs), first_logits(whole, expected))
        assert all(map(torch.equal, answered(model, inputs), answered(whole, expected)))


@of("qwen2_5_vl")
@pytest.mark.parametrize("seconds", [SECONDS, None])
def test_kept_tokens_stand_where_the_whole_video_has_them(tiny, seconds):
    """Written out by hand: the kept tokens' features and positions among those of the whole video."""
    (whole, processor), (model, own) = tiny(target_frames=None), tiny(layout="random", visual_tokens=11)
    every = video_inputs(processor, ["<video> What?"], [noise(16, 4)], video_seconds=seconds)
    inputs = video_inputs(own, ["<video> What?"], [noise(16, 4)], video_seconds=seconds)
    (kept,) = model.encode_video(**inputs)["video"].places
    shown = (every["input_ids"][0] == processor.video_token_id).nonzero()[:, 0]
    stay = torch.ones_like(every["input_ids"][0], dtype=torch.bool)
    stay[shown] = False
    stay[shown[kept]] = True
    assert torch.equal(every["input_ids"][:, stay], inputs["input_ids"])
    before = whole.encode_video(**every)["video"].pooler_output[0]
    (features,) = model.encode_video(**inputs)["video"].pooler_output
    torch.testing.assert_close(features, before[kept])
    rest = {name: value for name, value in inputs.items() if name != "pixel_values_videos"}
    positions, _ = model.model.get_rope_index(**rest, video_places=kept[None])
    expected, _ = whole.model.get_rope_index(**{k: v for k, v in every.items() if k != "pixel_values_videos"})
    text = int(shown[-1]) + 1  # goes on after the last token, which a rule may have left out
    assert torch.equal(positions[..., : shown[0] + 11], expected[..., stay][..., : shown[0] + 11])
    moved = positions[..., shown[0] + 11 :] - expected[..., text:]
    assert moved.unique().numel() == 1 and positions[:, 0, shown[0] + 11].unique().numel() == 1


@of("qwen2_5_vl")
@EVERY_RULE
def test_a_padded_batch_equals_its_rows(tiny, rule):
    model, processor = tiny(layout=rule, visual_tokens=24)
    texts = ["<video> What is it?", "Two of them: <video> <video> – <image> which is first, and why is that so?"]
    videos, images = [noise(16, 1), noise(8, 2), noise(4, 3, width=28)], [noise(1, 5)[0]]
    events = [EVENTS[0], [0, 0, 1, 1], [0, 1]]
    together = video_inputs(processor, texts, videos, video_events=events, images=images)
    options = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    batch = model.generate(**together, **options)
    for row, (text, own) in enumerate(zip(texts, [slice(0, 1), slice(1, 3)], strict=True)):
        picture = images if row else None
        alone = video_inputs(processor, [text], videos[own], video_events=events[own], images=picture)
        single = model.generate(**alone, **options)
        for ours, theirs in zip(batch.logits, single.logits, strict=True):
            torch.testing.assert_close(ours[row], theirs[0], atol=2e-4, rtol=2e-4)


@of("qwen2_5_vl")
@EVERY_RULE
def test_generation_and_log_probabilities_agree(tiny, rule):
    model, processor = tiny(layout=rule, visual_tokens=24)
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 4)], video_events=EVENTS, video_seconds=SECONDS)
    assert int((inputs["input_ids"] == processor.video_token_id).sum()) == RULES[rule].count(8, 16, 24)
    out = model.generate(**inputs, max_new_tokens=8, do_sample=False, output_logits=True, return_dict_in_generate=True)
    generated = len(out.logits)
    whole = dict(inputs) | {"input_ids": out.sequences, "attention_mask": torch.ones_like(out.sequences)}
    whole["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, generated))
    one_pass = first_logits(model, whole)[0, -generated - 1 : -1]
    torch.testing.assert_close(torch.stack(out.logits)[:, 0], one_pass, atol=2e-4, rtol=2e-4)


@of("qwen2_5_vl")
@EVERY_RULE
def test_encoding_once_serves_many_questions(tiny, rule):
    model, processor = tiny(layout=rule, visual_tokens=24)
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 1)], video_events=EVENTS)
    features = model.encode_video(**inputs)
    rest = {key: value for key, value in inputs.items() if key != "pixel_values_videos"}
    expected, logits = answered(model, inputs), first_logits(model, inputs)
    with mock.patch.object(model.model.visual, "forward", side_effect=AssertionError("the tower ran again")):
        assert all(map(torch.equal, answered(model, rest, mm_encoder_outputs=features), expected))
        assert torch.equal(first_logits(model, {**rest, "mm_encoder_outputs": features}), logits)


@of("qwen2_5_vl")
def test_without_features_there_are_no_positions(tiny):
    model, processor = tiny(layout="random", visual_tokens=3)
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 1)])
    del inputs["pixel_values_videos"]
    with pytest.raises(ValueError, match="layout random has no positions before it is encoded: call encode_video"):
        model.model.get_rope_index(**inputs)


@of("qwen2_5_vl")
@EVERY_RULE
def test_gradients_reach_the_tower(tiny, rule):
    model, processor = tiny(layout=rule, visual_tokens=24)
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 1)], video_events=EVENTS)
    model.zero_grad()
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    model.zero_grad()
    assert not still


@of("qwen3_vl", "qwen3_5")
def test_families_that_write_times_between_grids_refuse_rules(tiny):
    _, processor = tiny(layout="random", visual_tokens=3)
    with pytest.raises(ValueError, match=r"the layout random keeps single tokens, and Qwen3.* writes times"):
        video_inputs(processor, ["<video> What?"], [noise(16, 1)])


@of("qwen2_5_vl")
def test_the_tower_with_attention_says_what_its_last_block_attends_to(tiny):
    """Against an attention that notes what it computes, in the order of windows: the merger's outputs give it away."""
    model, processor = tiny()
    tower = model.model.visual
    inputs = video_inputs(processor, ["<video> What?"], [noise(6, 1, width=112)])
    pixels, grid_thw = inputs["pixel_values_videos"], inputs["video_grid_thw"]
    probabilities, keys, projected = [], [], []
    with torch.no_grad():
        handle = tower.blocks[-1].attn.qkv.register_forward_hook(lambda *_: projected.append(1))
        seen = tower_with_attention(tower)(pixels, grid_thw).pooler_output
        handle.remove()
        assert len(projected) == 1, "queries and keys are computed once"
        plain = tower(pixels, grid_thw)
        with noting(tower.blocks[-1].attn, probabilities, keys):
            tower(pixels, grid_thw)
        in_windows = tower.merger(plain.last_hidden_state)
    order = torch.cdist(plain.pooler_output, in_windows).argmin(1)
    assert len(order.unique()) == len(order) and len(probabilities) == 3
    received = torch.cat([each.mean((0, 1)) for each in probabilities]).unflatten(0, (-1, 4)).sum(1)[order]
    means = torch.cat(keys).unflatten(0, (-1, 4)).mean(1)[order]
    torch.testing.assert_close(seen, torch.cat((plain.pooler_output, received[:, None], means), 1))
    torch.testing.assert_close(received.unflatten(0, (3, -1)).sum(1), torch.ones(3))


@contextmanager
def noting(attention, probabilities, keys):
    """Notes an attention's probabilities ``[H, N, N]`` and mean keys ``[N, K]`` of each picture."""

    def note(module, query, key, value, *args, **kwargs):
        probabilities.append((query[0] @ key[0].mT * module.scaling).softmax(-1))
        keys.append(key[0].mean(0))
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, *args, **kwargs)

    before, attention.config = attention.config, copy(attention.config)
    AttentionInterface.register("noting", note)
    attention.config._attn_implementation = "noting"
    yield
    attention.config = before
