"""Qwen2.5-VL's positions."""

import pytest
import torch
from tiny_inputs import first_logits, noise, video_inputs

from marc.compression.plan import VideoPlan
from marc.compression.positions import text_position, video_positions

EVENTS = [[0, 0, 0, 1, 1, 2, 2, 2]]
LAYOUTS = [
    {"layout": "frames", "target_frames": 1},
    {"layout": "events"},
    {"layout": "events", "merge": "weighted", "visual_tokens": 5},
    {"target_frames": None},
]


def test_events_stand_at_their_times_and_cells_at_their_places(tiny):
    model, processor = tiny(layout="events", visual_tokens=6)
    seconds = [[0.0, 1.0, 2.0, 30.0, 31.0, 90.0, 91.0, 92.0]]
    inputs = video_inputs(
        processor,
        ["<video>?"],
        [noise(16, 4)],
        video_events=EVENTS,
        video_seconds=seconds,
        video_shares=[[4, 1, 1]],
    )
    positions, deltas = model.model.get_rope_index(**{k: v for k, v in inputs.items() if k != "pixel_values_videos"})
    video = positions[:, 0, inputs["mm_token_type_ids"][0] == 2]
    start = int(video[0, 0]) - 2
    rate = model.config.vision_config.tokens_per_second
    assert (video[0] - start).tolist() == [rate * 1] * 4 + [int(rate * 30.5), rate * 91]
    assert (video[1] - start).tolist() == [1, 1, 3, 3, 2, 2], "centres of 2 x 2 and 1 x 1 in a 4 x 4 grid"
    assert (video[2] - start).tolist() == [1, 3, 1, 3, 2, 2]
    length = inputs["input_ids"].shape[1]
    assert int(deltas) == int(positions[0, 0, -1]) + 1 - length


@pytest.mark.parametrize("compression", LAYOUTS)
def test_the_pure_functions_give_the_models_positions(tiny, compression):
    """Of the video by its plan and times, and of the text behind it by the family's rule."""
    model, processor = tiny(**compression)
    inputs = video_inputs(
        processor, ["<video> What?"], [noise(16, 4)], video_events=EVENTS, video_seconds=[[0.5 * n for n in range(8)]]
    )
    positions, _ = model.model.get_rope_index(**{k: v for k, v in inputs.items() if k != "pixel_values_videos"})
    (places,) = (inputs["mm_token_type_ids"][0] == 2).nonzero(as_tuple=True)
    first, last = int(places[0]), int(places[-1])
    start = int(positions[0, 0, first - 1]) + 1
    plan = processor.plan(inputs["video_grid_thw"][0], events=EVENTS[0]) or VideoPlan.whole(8, (4, 4))
    rate = model.config.vision_config.tokens_per_second
    expected = video_positions(plan, [0.5 * n for n in range(8)], tokens_per_second=rate)
    assert torch.equal(positions[:, 0, first : last + 1], expected + start)
    assert int(positions[0, 0, last + 1]) == start + text_position(expected, plan.size, model.family.text_after)


def test_without_merging_positions_are_those_of_transformers(tiny, stock):
    """A budget that holds everything changes nothing, except where generated tokens continue."""
    model, processor = tiny(layout="frames", target_frames=8, ratio=1.0)
    inputs = video_inputs(processor, ["<video> and <video>?"], [noise(16, 1), noise(6, 2)])
    model_inputs = {k: v for k, v in inputs.items() if k != "pixel_values_videos"}
    ours, _ = model.model.get_rope_index(**model_inputs)
    theirs, _ = stock.model.get_rope_index(**model_inputs)
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(first_logits(model, inputs), first_logits(stock, inputs))
