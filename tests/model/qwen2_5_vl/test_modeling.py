"""Qwen2.5-VL's positions: the published rule against numbers worked out by hand, the other against transformers."""

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


@pytest.mark.parametrize("text_after", ["published", "grid"])
@pytest.mark.parametrize("compression", LAYOUTS)
def test_the_pure_functions_give_the_models_positions(tiny, compression, text_after):
    """Of the video by its plan and times, and of the text behind it by the rule."""
    model, processor = tiny(text_after, **compression)
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
    assert int(positions[0, 0, last + 1]) == start + text_position(expected, plan.size, text_after)


def test_without_merging_positions_are_those_of_transformers(tiny, stock):
    """Under its own rule a budget that holds everything changes nothing, except where generated tokens continue."""
    model, processor = tiny("grid", layout="frames", target_frames=8, ratio=1.0)
    inputs = video_inputs(processor, ["<video> and <video>?"], [noise(16, 1), noise(6, 2)])
    model_inputs = {k: v for k, v in inputs.items() if k != "pixel_values_videos"}
    ours, _ = model.model.get_rope_index(**model_inputs)
    theirs, _ = stock.model.get_rope_index(**model_inputs)
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(first_logits(model, inputs), first_logits(stock, inputs))


TEXT, IMAGE, VIDEO = 0, 1, 2
MINUTE = {"video_grid_thw": torch.tensor([[32, 8, 16]]), "second_per_grid_ts": torch.tensor([1.0])}
"""64 frames, 2 a second, in a grid of 4 x 8 cells."""


def numbers(model, *rows, **grids):
    """Positions of the tokens of each row, and of the token generated behind it; rows are padded in front.

    Args:
        model: The model.
        *rows: Runs of tokens as pairs of their type and their number.
        **grids: Of the pictures and videos.
    """
    kinds = [[kind for kind, count in row for _ in range(count)] for row in rows]
    width = max(len(row) for row in kinds)
    types = torch.tensor([[TEXT] * (width - len(row)) + row for row in kinds])
    present = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in kinds])
    positions, deltas = model.model.get_rope_index(torch.zeros_like(types), types, attention_mask=present, **grids)
    assert deltas.shape == (len(rows), 1)
    generated = present.sum(1) + deltas[:, 0]
    return [positions[:, row, present[row] == 1].tolist() for row in range(len(rows))], generated.tolist()


@pytest.mark.parametrize(("text_after", "question", "answer"), [("published", 66, 70), ("grid", 11, 66)])
def test_a_question_about_a_minute(tiny, text_after, question, answer):
    """The video starts at 3; its last grid stands 31 seconds later, where transformers' offsets count from."""
    model, _ = tiny(text_after, target_frames=None)
    (row,), generated = numbers(model, [(TEXT, 3), (VIDEO, 32 * 32), (TEXT, 4)], **MINUTE)
    assert min(row[0][3:-4]) == 3 and max(row[0][3:-4]) == 65
    assert [axis[-4:] for axis in row] == [[question + index for index in range(4)]] * 3
    assert generated == [answer]


@pytest.mark.parametrize(("text_after", "answer"), [("published", 70), ("grid", 15)])
def test_with_true_times_generated_tokens_go_on_after_the_question(tiny, text_after, answer):
    model, _ = tiny(text_after, target_frames=None)
    seconds = torch.arange(32.0)[None]
    (row,), generated = numbers(model, [(TEXT, 3), (VIDEO, 32 * 32), (TEXT, 4)], **MINUTE, video_grid_seconds=seconds)
    assert generated == [answer] == [row[0][-1] + 1]


def test_one_frame_stands_at_the_mean_time_and_the_question_behind_it(tiny):
    """0 to 31 seconds, two positions each: 31."""
    model, _ = tiny(layout="frames", target_frames=1)
    (row,), generated = numbers(model, [(TEXT, 3), (VIDEO, 32), (TEXT, 4)], **MINUTE)
    assert row[0] == [0, 1, 2, *[3 + 31] * 32, 35, 36, 37, 38]
    assert generated == [39]


def test_the_question_stands_behind_the_last_event(tiny):
    """Means of 0 to 15 and of 16 to 31 seconds, two positions each: 15 and 47; the centre of 4 x 8 is (2, 4)."""
    model, _ = tiny(layout="events", visual_tokens=2)
    events = torch.tensor([[0] * 16 + [1] * 16])
    (row,), generated = numbers(model, [(TEXT, 3), (VIDEO, 2), (TEXT, 2)], **MINUTE, video_grid_events=events)
    assert row == [
        [0, 1, 2, 3 + 15, 3 + 47, 51, 52],
        [0, 1, 2, 3 + 2, 3 + 2, 51, 52],
        [0, 1, 2, 3 + 4, 3 + 4, 51, 52],
    ]
    assert generated == [53]


def test_two_videos_a_picture_and_padding(tiny):
    """The first row has two videos and is padded, the second a picture and two videos, with one of which it ends."""
    model, _ = tiny(target_frames=None)
    rows, generated = numbers(
        model,
        [(TEXT, 2), (VIDEO, 8), (TEXT, 1), (VIDEO, 3), (TEXT, 2)],
        [(TEXT, 1), (IMAGE, 8), (TEXT, 1), (VIDEO, 8), (TEXT, 1), (VIDEO, 2)],
        image_grid_thw=torch.tensor([[1, 4, 8]]),
        video_grid_thw=torch.tensor([[2, 4, 4], [3, 2, 2], [4, 2, 4], [1, 2, 4]]),
        second_per_grid_ts=torch.ones(4),
    )
    assert rows[0] == [
        [0, 1, 2, 2, 2, 2, 4, 4, 4, 4, 5, 6, 8, 10, 11, 12],
        [0, 1, 2, 2, 3, 3, 2, 2, 3, 3, 5, 6, 6, 6, 11, 12],
        [0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 5, 6, 6, 6, 11, 12],
    ]
    assert rows[1] == [
        [0, 1, 1, 1, 1, 1, 1, 1, 1, 5, 6, 6, 8, 8, 10, 10, 12, 12, 13, 14, 14],
        [0, 1, 1, 1, 1, 2, 2, 2, 2, 5, 6, 6, 6, 6, 6, 6, 6, 6, 13, 14, 14],
        [0, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 6, 7, 6, 7, 6, 7, 13, 14, 15],
    ]
    assert generated == [13, 16], "one after the largest"


@pytest.mark.parametrize("row", [[(TEXT, 2), (IMAGE, 8), (TEXT, 3)], [(TEXT, 4)]])
def test_without_a_video_both_rules_are_transformers_own(tiny, stock, row):
    grids = {"image_grid_thw": torch.tensor([[1, 4, 8]])}
    for text_after in ("published", "grid"):
        model, _ = tiny(text_after)
        assert numbers(model, row, [(TEXT, 2)], **grids) == numbers(stock, row, [(TEXT, 2)], **grids)


def test_transformers_still_goes_on_after_the_grid(stock):
    (row,), _ = numbers(stock, [(TEXT, 3), (VIDEO, 32 * 32), (TEXT, 4)], **MINUTE)
    assert row[0][-4] == 11, (
        "this transformers numbers the text behind a video by another rule than 5.23, so that `grid` of MarcConfig no "
        "longer means what checkpoints such as the embedded model were trained under: count it in "
        "MarcModel.get_rope_index by marc.compression.positions.text_position"
    )
