"""DeepStack: what is decided by the last features is carried out on all streams, and all of them reach the model."""

import copy

import pytest
import torch
from tiny_inputs import first_logits, noise, video_inputs
from tiny_models import make_loud, of, stock_model
from transformers.modeling_outputs import BaseModelOutputWithPooling

from marc.compression.cells import covered
from marc.compression.merge import compress
from marc.model.streams import apart, features_of_each, side_by_side

EVENTS = [[0, 0, 0, 1, 1, 2, 2, 2]]
has_streams = of("qwen3_vl")


def tapped(model, taps, depth):
    """The model with a tower of so many blocks, of which some have DeepStack features."""
    config = copy.deepcopy(model.config)
    config.vision_config.depth, config.vision_config.deepstack_visual_indexes = depth, taps
    torch.manual_seed(2)
    return type(model)(config).eval()


def test_side_by_side_and_apart():
    last, levels = torch.randn(5, 4), [torch.randn(5, 4), torch.randn(5, 4)]
    together = side_by_side(last, levels)
    assert together.shape == (5, 12) and side_by_side(last, None) is last
    features = apart([together, together[:2]], 4)
    for got, stream in zip((features.pooler_output, *features.deepstack_features), (last, *levels), strict=True):
        assert torch.equal(got[0], stream) and torch.equal(got[1], stream[:2])
    assert all(map(torch.equal, features_of_each(features), [together, together[:2]]))
    assert apart([last], 4).deepstack_features == []


@has_streams
@pytest.mark.parametrize(
    "compression",
    [
        {"layout": "frames", "target_frames": 3, "window": 2, "ratio": 0.5},
        {"layout": "frames", "target_frames": 2, "merge": "weighted"},
        {"layout": "events"},
        {"layout": "events", "visual_tokens": 12, "merge": "weighted"},
    ],
)
def test_one_decision_by_the_last_features_holds_for_every_stream(tiny, stock, compression):
    """By hand: the weights and sizes that the last features alone lead to, applied to each stream."""
    model, processor = tiny(**compression)
    inputs = video_inputs(processor, ["<video>?"], [noise(16, 3)], video_events=EVENTS)
    with torch.no_grad():
        whole = stock.model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
    streams = [each[0].unflatten(0, (8, 16)) for each in (whole.pooler_output, *whole.deepstack_features)]
    decided = compress(streams[0], model.compression, events=EVENTS[0], size=(4, 4))
    got = model.encode_video(**inputs)["video"]
    assert got.members[0].tolist() == decided.members.tolist()
    assert len(got.deepstack_features) == 2
    for seen, stream in zip((got.pooler_output, *got.deepstack_features), streams, strict=True):
        merged = torch.einsum("st,tpd->spd", decided.weights, stream).unflatten(1, (4, 4))
        expected = torch.stack(
            [
                torch.einsum("hwd,h,w->d", grid, torch.tensor(rows), torch.tensor(columns)) / sum(rows) / sum(columns)
                for grid, cells in zip(merged, decided.cells, strict=True)
                for rows, columns in covered((4, 4), cells)
            ]
        )
        torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=1e-5)


@has_streams
@pytest.mark.parametrize("tower_layer", [None, 1, {2: 4}])
def test_earlier_features_decide_nothing_however_large_they_are(tiny, tower_layer):
    model, processor = tiny(layout="frames", target_frames=3, tower_layer=tower_layer)
    inputs = video_inputs(processor, ["<video>"], [noise(32, 1)])
    before = model.encode_video(**inputs)["video"]
    make_loud(model)
    after = model.encode_video(**inputs)["video"]
    assert after.deepstack_features[0][0].abs().mean() > 10 * after.pooler_output[0].abs().mean()
    assert after.members[0].tolist() == before.members[0].tolist()
    assert torch.equal(after.pooler_output[0], before.pooler_output[0])


@has_streams
@pytest.mark.parametrize("tower_layer", [1, 3, {2: 8}])
@pytest.mark.parametrize("taps", [[2, 0], [0, 1, 3], [4], [3, 1, 4]])
def test_taps_anywhere_are_transformers_own_where_nothing_merges(tiny, taps, tower_layer):
    """Before and behind each merge, and in no order."""
    model, processor = tiny(layout="events", visual_tokens=8 * 16, tower_layer=tower_layer)
    model = tapped(model, taps, 5)
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 1)], video_events=[list(range(8))])
    stock = stock_model(model)
    with torch.no_grad():
        theirs = stock.model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
    ours = model.encode_video(**inputs)["video"]
    assert len(ours.deepstack_features) == len(taps)
    assert torch.equal(features_of_each(ours)[0], features_of_each(theirs)[0])
    asked = {name: value for name, value in inputs.items() if name != "video_grid_events"}
    assert torch.equal(first_logits(model, inputs), first_logits(stock, asked))


@has_streams
@pytest.mark.parametrize("taps", [[2, 0], [0, 1, 3]])
@pytest.mark.parametrize("chunk", [100, 200])
def test_taps_anywhere_in_chunks(tiny, taps, chunk):
    features = []
    for size in (None, chunk):
        model, processor = tiny(layout="events", tower_layer={1: 2, 3: 1}, tower_chunk=size)
        model = tapped(model, taps, 4)
        inputs = video_inputs(processor, ["<video>"], [noise(16, 1)], video_events=EVENTS)
        features.append(features_of_each(model.encode_video(**inputs)["video"])[0])
    torch.testing.assert_close(*features, atol=1e-6, rtol=1e-5)


@has_streams
def test_every_stream_reaches_the_language_model(tiny):
    """Apart or side by side, of a video and of a picture; without the earlier ones the model says another thing."""
    model, processor = tiny()
    inputs = video_inputs(processor, ["<image> <video>?"], [noise(16, 1)], images=[noise(1, 2)[0]])
    expected = first_logits(model, inputs)
    with torch.no_grad():
        picture = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True)
    known = {"image": picture, **model.encode_video(**inputs)}
    rest = {name: value for name, value in inputs.items() if "pixel" not in name}
    assert torch.equal(first_logits(model, {**rest, "mm_encoder_outputs": known}), expected)
    beside = {
        kind: BaseModelOutputWithPooling(pooler_output=features_of_each(output)) for kind, output in known.items()
    }
    assert torch.equal(first_logits(model, {**rest, "mm_encoder_outputs": beside}), expected)
    for kind in known:
        blind = copy.deepcopy(known)
        for level in blind[kind].deepstack_features:
            for features in level:
                features.zero_()
        assert not torch.allclose(first_logits(model, {**rest, "mm_encoder_outputs": blind}), expected, atol=1e-3)


@has_streams
def test_a_tower_without_any_is_read_too(tiny):
    model, processor = tiny()
    plain = tapped(model, [], 2)
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 1)], video_events=EVENTS)
    output = plain.generate(**inputs, max_new_tokens=3, num_return_sequences=2, do_sample=True)
    assert output.shape == (2, inputs["input_ids"].shape[1] + 3)
    with torch.no_grad():
        again = plain(
            **{name: value for name, value in inputs.items() if name != "pixel_values_videos"},
            mm_encoder_outputs=plain.encode_video(**inputs),
        ).logits
    assert torch.equal(first_logits(plain, inputs), again)
