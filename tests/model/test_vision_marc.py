"""Merging inside the tower: exact where it must be, the same rules as after it, and only as much work as is left."""

import copy
from unittest import mock

import pytest
import torch
from tiny_inputs import first_logits, noise, video_inputs

from marc.model import CompressionConfig
from marc.model.compression import compress
from marc.model.plan import plan_video
from marc.model.vision_marc import run_tower, tower_part

EVENTS = [0, 0, 0, 1, 1, 2, 2, 2]


@pytest.fixture
def video(tiny):
    model, processor = tiny()
    inputs = video_inputs(processor, ["<video>"], [noise(16, 1)])
    return model.model.visual, inputs["pixel_values_videos"], tuple(inputs["video_grid_thw"][0].tolist())


@pytest.mark.parametrize("cut", [1, 2])
def test_parts_in_a_row_are_the_tower(video, cut):
    tower, pixels, grid = video
    grid_thw = torch.tensor([grid, (1, 4, 4)])
    pixels = torch.cat([pixels, pixels[:16]])
    with torch.no_grad():
        whole = tower(pixels, grid_thw=grid_thw).pooler_output
        hidden = tower_part(tower, 0, cut)(pixels, grid_thw=grid_thw).pooler_output
        if cut < len(tower.blocks):
            hidden = hidden.reshape(-1, tower.config.hidden_size)
            hidden = tower_part(tower, cut, len(tower.blocks))(hidden, grid_thw=grid_thw).pooler_output
    assert torch.equal(hidden, whole)
    assert len(tower.blocks) == 2, "the tower itself is left alone"


@pytest.mark.parametrize(("layout", "tower_layer"), [("events", 1), ("frames", 1), ("frames", {1: 3})])
@pytest.mark.parametrize("merge", ["mean", "weighted"])
def test_a_static_clip_loses_nothing(tiny, layout, tower_layer, merge):
    model, processor = tiny(layout=layout, tower_layer=tower_layer, merge=merge)
    still = noise(2, 1)[:1].repeat(16, axis=0)
    inputs = video_inputs(processor, ["<video> What?"], [still], video_events=[EVENTS])
    inside = first_logits(model, inputs)
    model.compression = CompressionConfig(layout=layout, merge=merge)
    torch.testing.assert_close(inside, first_logits(model, inputs), atol=2e-5, rtol=2e-5)


def test_the_frames_that_are_left_are_averages_of_hidden_states(video):
    """By hand: the first block on every frame, the merge, the second block on what is left."""
    tower, pixels, grid = video
    config = CompressionConfig(layout="events", merge="weighted", tower_layer=1, visual_tokens=48)
    plan = plan_video(8, (4, 4), config, events=EVENTS)
    with torch.no_grad():
        (got,) = run_tower(tower, pixels, [grid], [plan])
        hidden = tower_part(tower, 0, 1)(pixels, grid_thw=torch.tensor([grid])).pooler_output.unflatten(0, (8, 16))
        means = torch.stack([hidden[:3].mean(0), hidden[3:5].mean(0), hidden[5:].mean(0)])
        rest = tower_part(tower, 1, 2)(means.reshape(-1, 64), grid_thw=torch.tensor([[3, 8, 8]])).pooler_output
    torch.testing.assert_close(got.tokens, rest.unflatten(0, (3, 16)))
    assert got.members.tolist() == EVENTS
    assert got.sizes.tolist() == [3, 2, 3]


@pytest.mark.parametrize("tower_layer", [1, {1: 4}])
def test_the_rules_inside_are_those_outside(video, tower_layer):
    """Members of a merge after block 1 are those of `compress` on the hidden states there."""
    tower, pixels, grid = video
    config = CompressionConfig(layout="frames", target_frames=2, window=3, ratio=0.7, tower_layer=tower_layer)
    plan = plan_video(8, (4, 4), config, events=EVENTS)
    with torch.no_grad():
        (got,) = run_tower(tower, pixels, [grid], [plan])
        hidden = tower_part(tower, 0, 1)(pixels, grid_thw=torch.tensor([grid])).pooler_output.unflatten(0, (8, 16))
    left = 2 if tower_layer == 1 else 4
    outside = compress(hidden, CompressionConfig("frames", left, window=3, ratio=0.7), events=EVENTS, grid=(4, 4))
    assert got.members.tolist() == outside.members.tolist()
    assert len(got.tokens) == left


def test_later_blocks_run_on_what_is_left(tiny):
    model, processor = tiny(layout="events", tower_layer=1)
    inputs = video_inputs(processor, ["<video>"], [noise(16, 1)], video_events=[EVENTS])
    blocks = model.model.visual.blocks
    with (
        mock.patch.object(blocks[0], "forward", wraps=blocks[0].forward) as first,
        mock.patch.object(blocks[1], "forward", wraps=blocks[1].forward) as second,
    ):
        model.encode_video(**inputs)
    assert [call.args[0].shape[0] for call in first.call_args_list] == [8 * 64]
    assert [call.args[0].shape[0] for call in second.call_args_list] == [3 * 64]


@pytest.mark.parametrize("tower_layer", [None, 1, {1: 4}])
def test_a_batch_of_different_videos_equals_its_rows(tiny, tower_layer):
    model, processor = tiny(layout="frames", target_frames=2, tower_layer=tower_layer)
    videos = [noise(16, 1), noise(6, 2, width=28), noise(2, 3)]
    together = model.encode_video(**video_inputs(processor, ["<video><video><video>"], videos))["video"]
    for index, own in enumerate(videos):
        alone = model.encode_video(**video_inputs(processor, ["<video>"], [own]))["video"]
        torch.testing.assert_close(together.pooler_output[index], alone.pooler_output[0])
        assert together.members[index].tolist() == alone.members[0].tolist()


def test_token_counts_do_not_depend_on_where_it_merges():
    for layout in ("frames", "events"):
        for target in (1, 2, 4):
            counts = {
                plan_video(8, (4, 4), CompressionConfig(layout, target, tower_layer=layer), events=EVENTS).tokens
                for layer in (None, 1)
            }
            assert len(counts) == 1


def test_more_events_than_tokens_are_joined_after_the_tower(tiny):
    model, processor = tiny(layout="events", visual_tokens=2, merge="weighted", tower_layer=1)
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 1)], video_events=[EVENTS])
    features = model.encode_video(**inputs)["video"]
    assert len(features.pooler_output[0]) == 2
    assert set(features.members[0].tolist()) == {0, 1}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_the_whole_tower(tiny, checkpointing):
    model, processor = tiny(tower_layer=1)
    model = copy.deepcopy(model).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 1)], video_events=[EVENTS])
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_images_in_the_same_batch_are_left_alone(tiny, stock):
    model, processor = tiny(tower_layer=1)
    image = noise(1, 5)[0]
    inputs = video_inputs(processor, ["<video> and <image>?"], [noise(8, 1)], images=[image])
    with torch.no_grad():
        ours = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output[0]
        theirs = stock.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output[0]
    assert torch.equal(ours, theirs)
    assert first_logits(model, inputs).isfinite().all()


@pytest.mark.parametrize("value", [0, -1, True, {}, {2: 4, 3: 5}, {0: 4}, {2: 0}, "deep"])
def test_a_wrong_layer_is_named(value):
    with pytest.raises(ValueError, match=r"compression\.tower_layer must be"):
        CompressionConfig(layout="frames", tower_layer=value)


def test_a_schedule_needs_the_layout_that_has_one():
    with pytest.raises(ValueError, match="with layout 'frames' only"):
        CompressionConfig(layout="events", tower_layer={1: 4})


def test_a_layer_that_the_tower_lacks_is_named(tiny):
    model, processor = tiny(tower_layer=2)
    with pytest.raises(ValueError, match="tower_layer 2 is not inside the vision tower of 2 blocks"):
        model.encode_video(**video_inputs(processor, ["<video>"], [noise(8, 1)]))


def test_a_schedule_survives_json():
    config = CompressionConfig.from_dict({"layout": "frames", "tower_layer": {"4": 16, "8": 4}})
    assert config.tower_layer == ((4, 16), (8, 4))
    assert CompressionConfig.from_dict(config.to_dict()) == config
