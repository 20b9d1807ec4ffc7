"""The tower runs over each distinct file once; what it says is that of a call for each alone."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
import torch
from tiny_inputs import noise
from tiny_models import feature_width, make_loud, of
from tiny_prompts import patches, shown

from marc.compression import CompressionConfig
from marc.inference.encoding import encode, encode_once
from marc.inference.video_input import KINDS, VideoInput, every_token, feature_inputs, inputs_at
from marc.model.processing import frame_patches
from marc.model.streams import features_of_each

COMPRESSIONS = ({}, {"visual_tokens": 3}, {"layout": "frames"}, {"target_frames": None}, {"tower_layer": 1})


@contextmanager
def tower_calls(model) -> Iterator[list[int]]:
    """Patches that each call of the tower reads."""
    calls: list[int] = []
    visual = model.model.visual
    hook = visual.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    yield calls
    hook.remove()


def still(processor, seed: int = 1, *, difference: int = 0) -> VideoInput:
    """Two scenes of two grids each, which are equal but for a difference in brightness."""
    pictures = np.repeat(noise(2, seed) // 2, 4, axis=0)
    pictures[2:4] += difference
    pictures[6:8] += difference
    pixels, _ = frame_patches(processor.video_processor, pictures)
    video = patches(processor, seed)
    return VideoInput.of(dataclasses.replace(video, pixels=pixels), processor, processor.compression)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("events", [None, (0, 0, 1, 2)])
def test_features_and_members_are_those_of_the_models_own_call(compression, events, tiny):
    model, processor = tiny(**compression)
    video = shown(processor, 1, events=events)
    planning = {"video_grid_events": torch.tensor([video.events])} if video.plan else {}
    with torch.no_grad():
        own = model.model.get_video_features(video.patches.pixels, torch.tensor([video.patches.grid_thw]), **planning)
        features = encode(model, [video])
    torch.testing.assert_close(features[video], features_of_each(own)[0])
    assert len(features[video]) == video.tokens
    if video.plan:
        assert torch.equal(video.members, own.members[0]) and video.members.shape == (4,)
        assert (video.members.diff() >= 0).all()
    else:
        assert video.members is None


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_each_distinct_video_and_picture_is_encoded_once(compression, tiny):
    model, processor = tiny(**compression, duplicates=None)
    videos, picture = [shown(processor, seed) for seed in (1, 2)], shown(processor, 3, kind="image")
    alone = {each: encode(model, [each])[each] for each in (*videos, picture)}
    with tower_calls(model) as calls:
        together = encode(model, [videos[0], picture, videos[1], videos[0], picture])
    assert list(together) == [videos[0], picture, videos[1]]
    if not compression.get("tower_layer"):
        assert sorted(calls) == [64, 512], "all pictures in one call, all videos in another"
    for each, features in alone.items():
        torch.testing.assert_close(together[each], features, rtol=1e-4, atol=1e-5)


def test_the_tower_is_called_in_the_same_order_whatever_comes_first(tiny):
    """Processes that share its weights out (ZeRO-3) must call it in step."""
    model, processor = tiny()
    video, picture = shown(processor, 1), shown(processor, 3, kind="image")
    with tower_calls(model) as calls:
        encode(model, [video, picture])
        encode(model, [picture, video])
    assert calls[:2] == calls[2:] and calls[0] != calls[1]


def test_several_budgets_in_one_call(tiny):
    model, processor = tiny()
    file = patches(processor, 1)
    budgets = [model.compression, CompressionConfig("frames"), every_token(model.compression)]
    inputs = [VideoInput.of(file, processor, budget) for budget in budgets]
    together = encode(model, inputs)
    assert [len(together[each]) for each in inputs] == [16, 16, 64]
    for each in inputs:
        torch.testing.assert_close(together[each], encode(model, [each])[each])
    assert model.compression == budgets[0]


@pytest.mark.parametrize("compression", COMPRESSIONS[:-1])
def test_known_tokens_of_the_tower_give_the_same_without_the_tower(compression, tiny):
    model, processor = tiny()
    video, picture = shown(processor, 1, events=(0, 0, 1, 2)), shown(processor, 3, kind="image")
    with torch.no_grad():
        budget = CompressionConfig(**compression)
        expected_input = VideoInput.of(video.patches, processor, budget)
        expected = encode(model, [expected_input])[expected_input]
    encode_once(model, [video, picture])
    assert video.patches.pixels is None and video.patches.tower.shape == (64, feature_width(model))
    ((other,),) = inputs_at([[video.patches]], processor, budget)
    with tower_calls(model) as calls:
        features = encode_once(model, [other, video, picture])
    assert not calls
    torch.testing.assert_close(features[other], expected)
    assert features[video] is video.features and features[picture].shape == (16, feature_width(model))
    assert (other.members is None) == (expected_input.members is None)
    if other.members is not None:
        assert torch.equal(other.members, expected_input.members)


@of("qwen3_vl")
def test_of_known_tokens_the_last_features_decide(tiny):
    model, processor = tiny(layout="frames", target_frames=3)
    make_loud(model)
    video = shown(processor, 1, frames=32)
    expected = encode(model, [video])[video]
    members = video.members
    encode_once(model, [video])
    ((again,),) = inputs_at([[video.patches]], processor, model.compression)
    assert video.patches.tower is not None and again is not video
    torch.testing.assert_close(encode_once(model, [again])[again], expected)
    assert torch.equal(again.members, members)


@of("qwen2_5_vl")
def test_pixels_stay_where_a_rule_may_want_them_later(tiny):
    model, processor = tiny()
    later = dataclasses.replace(model.compression, layout="visionzip")
    video = shown(processor, 1)
    encode_once(model, [video], [later])
    other = VideoInput.of(video.patches, processor, later)
    assert encode_once(model, [other])[other].dtype == model.dtype and len(other.places) == other.tokens


@pytest.mark.parametrize("compression", [{"tower_layer": 1}, {"duplicates": 0.1}])
def test_where_the_budget_changes_what_the_tower_reads_pixels_stay(compression, tiny):
    model, processor = tiny(**compression)
    video = shown(processor, 1)
    features = encode_once(model, [video])[video]
    assert video.patches.tower is None and video.patches.pixels is not None and video.is_known
    with tower_calls(model) as calls:
        assert encode_once(model, [video])[video] is features
    assert not calls
    full = VideoInput.of(video.patches, processor, every_token(model.compression))
    assert encode_once(model, [full])[full].shape == (64, feature_width(model))


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize(("threshold", "read"), [(None, 256), (0.0, 256), (0.1, 128)])
def test_near_duplicates_are_encoded_once_where_asked_for(once, threshold, read, tiny):
    model, processor = tiny(duplicates=threshold)
    video = still(processor, difference=1)
    with tower_calls(model) as calls:
        features = (encode_once if once else encode)(model, [video])[video]
    assert calls == [read]
    whole = encode(model, [still(processor, difference=1)])
    torch.testing.assert_close(features, next(iter(whole.values())))


@pytest.mark.parametrize("once", [False, True])
def test_equal_frames_count_as_often_as_they_occur(once, tiny):
    model, processor = tiny(duplicates=0.0)
    apart, _ = tiny(duplicates=None)
    video, same = still(processor), still(processor)
    same = VideoInput.of(same.patches, processor, apart.compression)
    features = (encode_once if once else encode)(model, [video])[video]
    torch.testing.assert_close(features, encode(apart, [same])[same])
    assert torch.equal(video.members, same.members)


def test_gradients_reach_the_tower_unless_it_keeps_its_weights(tiny):
    model, processor = tiny()
    trained, kept = shown(processor, 1), shown(processor, 1)
    assert encode(model, [trained])[trained].requires_grad and trained.features is None
    assert not encode_once(model, [kept])[kept].requires_grad


def test_an_input_without_pixels_cannot_be_encoded(tiny):
    model, processor = tiny()
    video = shown(processor, 1)
    video.patches.pixels = None
    with pytest.raises(AssertionError, match="without pixels"):
        encode(model, [video])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compression", [{}, {"layout": "frames"}, {"target_frames": None}, {"tower_layer": 1}])
def test_a_dummy_is_not_seen_and_gives_the_tower_gradients_of_zero(kind, compression, tiny):
    model, processor = tiny(**compression)
    dummy = VideoInput.dummy(kind, processor, model.compression)
    features = encode(model, [dummy])
    assert features[dummy].shape == (0, feature_width(model))
    ids = torch.tensor([processor.tokenizer("Why?")["input_ids"]])
    logits = model(input_ids=ids, mm_encoder_outputs=feature_inputs([[dummy]], features)).logits
    assert torch.equal(logits, model(input_ids=ids).logits)
    logits.sum().backward()
    gradients = [weight.grad for weight in model.model.visual.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("options", [{"layout": "events"}, {"target_frames": None}])
def test_chunks_of_the_tower_change_no_feature_and_no_gradient(options, tiny):
    """Whatever becomes of the tokens, training reads no more patches at once than `tower_chunk` says."""
    results = []
    for chunk in (None, 100):
        model, processor = tiny(**options, tower_chunk=chunk)
        videos = [shown(processor, seed) for seed in (1, 2)]
        block = model.model.visual.blocks[0]
        with mock.patch.object(block, "forward", wraps=block.forward) as run:
            features = list(encode(model, videos).values())
        largest = max(call.args[0].shape[0] for call in run.call_args_list)
        sum(tokens.square().sum() for tokens in features).backward()
        results.append((features, model.model.visual.blocks[0].attn.qkv.weight.grad, largest))
    (whole, gradient, everything), (chunked, chunked_gradient, largest) = results
    assert largest <= 100 < everything
    torch.testing.assert_close(chunked, whole, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(chunked_gradient, gradient, atol=1e-5, rtol=1e-4)
