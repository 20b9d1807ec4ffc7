"""Near-duplicates: the rule itself, and that encoding them once changes nothing but the cost."""

import copy
import itertools
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_inputs import noise, video_inputs

from marc.compression.duplicates import distinct_frames, frame_distance
from marc.model import CompressionConfig

REPEATS = [0, 0, 0, 1, 1, 2, 1, 1]
"""A clip of 8 grids that shows 4 pictures, one of them twice."""


def repeating(seed: int):
    pictures = noise(6, seed).reshape(3, 2, 56, 56, 3)
    return pictures[REPEATS].reshape(16, 56, 56, 3)


def test_distance_is_the_mean_over_the_patch_that_differs_most():
    a = torch.zeros(3, 4)
    b = a.clone()
    b[1] = torch.tensor([1.0, -1.0, 2.0, 0.0])
    b[2] = 0.5
    assert frame_distance(a, b) == 1.0


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.floats(0, 2), st.integers(0, 2**16))
def test_every_frame_is_near_the_one_that_stands_for_it(frames, threshold, seed):
    generator = torch.Generator().manual_seed(seed)
    frames_TPC = torch.randn(frames, 10, 3, generator=generator).cumsum(0) * 0.2
    numbers = distinct_frames(frames_TPC, threshold)
    firsts = [numbers.index(number) for number in numbers]
    assert numbers[0] == 0
    assert all(later - earlier in (0, 1) for earlier, later in itertools.pairwise(numbers))
    assert all(frame_distance(frames_TPC[t], frames_TPC[first]) <= threshold for t, first in enumerate(firsts))
    begins = [t for t, first in enumerate(firsts) if t == first and t > 0]
    assert all(frame_distance(frames_TPC[t], frames_TPC[firsts[t - 1]]) > threshold for t in begins)


def test_a_cursor_on_a_still_picture_is_seen():
    frames_TPC = torch.randn(1, 100, 12).repeat(4, 1, 1)
    frames_TPC[2:, 37] += 0.5
    assert distinct_frames(frames_TPC, 0.4) == [0, 0, 1, 1]


@pytest.mark.parametrize("value", [True, -0.1, float("inf"), float("nan"), "few"])
def test_a_wrong_distance_is_named(value):
    with pytest.raises(ValueError, match=r"compression\.duplicates must be a number"):
        CompressionConfig(duplicates=value)


def test_a_slow_pan_does_not_drift_away():
    frames_TPC = torch.arange(10.0)[:, None, None].expand(10, 4, 3) * 0.1
    assert distinct_frames(frames_TPC, 0.25) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]


@pytest.mark.parametrize("merge", ["mean", "weighted"])
@pytest.mark.parametrize(("layout", "tower_layer"), [("frames", None), ("frames", 1), ("events", None), ("events", 1)])
def test_encoding_equal_frames_once_changes_nothing(tiny, layout, tower_layer, merge):
    events = [[0, 0, 1, 1, 1, 1, 2, 2], [0, 1, 2, 2, 2, 2, 2, 3]]
    features = {}
    for duplicates in (None, 0.0):
        model, processor = tiny(
            layout=layout, target_frames=2, tower_layer=tower_layer, merge=merge, duplicates=duplicates
        )
        inputs = video_inputs(processor, ["<video><video>"], [repeating(1), repeating(2)], video_events=events)
        block = model.model.visual.blocks[0]
        with mock.patch.object(block, "forward", wraps=block.forward) as run:
            features[duplicates] = model.encode_video(**inputs)["video"]
        patches = sum(call.args[0].shape[0] for call in run.call_args_list)
        assert patches == 2 * 64 * (8 if duplicates is None else 4)
    for every, once in zip(features[None].pooler_output, features[0.0].pooler_output, strict=True):
        torch.testing.assert_close(once, every, atol=1e-6, rtol=1e-5)
    for every, once in zip(features[None].members, features[0.0].members, strict=True):
        assert once.tolist() == every.tolist()


def test_gradients_are_those_of_every_frame(tiny):
    gradients = []
    for duplicates in (None, 0.0):
        model, processor = tiny(layout="events", duplicates=duplicates, visual_tokens=16)
        model = copy.deepcopy(model).train()
        inputs = video_inputs(processor, ["<video> What?"], [repeating(1)], video_events=[[0, 0, 1, 1, 1, 1, 2, 2]])
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_near_duplicates_count_as_often_as_they_occur(tiny):
    """One picture three times with a little noise, another once: their mean is 3 to 1."""
    model, processor = tiny(layout="events", merge="weighted", visual_tokens=16, duplicates=0.5)
    pictures = noise(4, 3).reshape(2, 2, 56, 56, 3)
    clip = pictures[[0, 0, 0, 1]].reshape(8, 56, 56, 3)
    clip[2:6] ^= 1
    got = model.encode_video(**video_inputs(processor, ["<video>"], [clip], video_events=[[0] * 4]))["video"]
    thrice, once = (
        model.encode_video(**video_inputs(processor, ["<video>"], [part], video_events=[[0]]))["video"]
        for part in (clip[:2], clip[6:])
    )
    expected = (3 * thrice.pooler_output[0] + once.pooler_output[0]) / 4
    torch.testing.assert_close(got.pooler_output[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("value", [-1, "near", [0]])
def test_a_wrong_threshold_is_named(tiny, value):
    with pytest.raises(ValueError, match=r"compression\.duplicates must be"):
        tiny(duplicates=value)
