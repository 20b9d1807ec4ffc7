"""One record from the file to the language model: its plan, its counts and what the model is told of it."""

import pytest
import torch
from tiny_inputs import noise, video_inputs
from tiny_prompts import patches, shown

from marc.compression import CompressionConfig
from marc.inference.video_input import (
    VideoInput,
    at_compression,
    every_token,
    feature_inputs,
    grid_inputs,
    inputs_at,
    padded,
)
from marc.model.timestamps import TimestampedProcessor


def grid_times(processor, grids: int) -> list[float]:
    """Of frames every five seconds: each first frame's, or the mean of two where the prompt says it."""
    first = 2.5 if isinstance(processor, TimestampedProcessor) else 0.0
    return [first + 10 * grid for grid in range(grids)]


COMPRESSIONS = ({}, {"visual_tokens": 3}, {"layout": "frames", "target_frames": 2}, {"target_frames": None})


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("events", [None, (0, 0, 1, 2)])
def test_it_counts_as_the_processor_writes_and_plans_as_the_model_does(compression, events, tiny):
    model, processor = tiny(**compression)
    video = shown(processor, 1, events=events)
    inputs = video_inputs(
        processor, ["<video>"], [noise(8, 1)], **({"video_events": [list(events)]} if events else {})
    )
    assert (inputs["input_ids"] == model.config.video_token_id).sum() == video.tokens
    told = grid_inputs([[video]])
    assert told["video_grid_thw"].tolist() == inputs["video_grid_thw"].tolist() == [[4, 8, 8]]
    (grid,) = model.model.plan_grids(told["video_grid_thw"], told.get("video_grid_events"), told["video_grid_seconds"])
    assert grid.plan == video.plan
    assert list(grid.seconds) == grid_times(processor, 4)
    assert video.patches.tokens == 64
    assert (video.tokens < 64) == (compression.get("target_frames", 1) is not None)


def test_without_events_the_event_layout_keeps_the_order_of_all_grids(tiny):
    _, processor = tiny()
    assert shown(processor, 1).events == (0, 1, 2, 3)
    assert shown(processor, 1, CompressionConfig("frames")).events == (0, 0, 0, 0)
    assert shown(processor, 1, CompressionConfig("frames"), events=(0, 1, 1, 1)).events == (0, 1, 1, 1)


def test_shares_say_how_many_tokens_each_event_has(tiny):
    _, processor = tiny()
    budget = CompressionConfig(visual_tokens=6)
    video = VideoInput.of(patches(processor, 1, events=(0, 0, 1, 1)), processor, budget, shares=(1, 5))
    assert grid_inputs([[video]])["video_event_shares"].tolist() == [[1, 5]]
    alike = VideoInput.of(patches(processor, 1, events=(0, 0, 1, 1)), processor, budget)
    assert "video_event_shares" not in grid_inputs([[alike]])
    assert grid_inputs([[video, alike]])["video_event_shares"].tolist() == [[1, 5], [0, 0]]


def test_a_picture_keeps_every_token(tiny):
    _, processor = tiny()
    picture = shown(processor, 1, kind="image")
    assert (picture.plan, picture.tokens, picture.kind) == (None, 16, "image")
    assert list(grid_inputs([[picture]])) == ["image_grid_thw"]


def test_a_file_has_one_input_at_each_budget(tiny):
    _, processor = tiny()
    file, other = patches(processor, 1), patches(processor, 1)
    budgets = [processor.compression, CompressionConfig("frames")]
    (first, second), (third,) = inputs_at([[file, other], [file]], processor, budgets[0])
    assert first is third and first is not second
    assert inputs_at([[file]], processor, budgets[0]) == [(first,)]
    ((elsewhere,),) = inputs_at([[file]], processor, budgets[1])
    assert elsewhere is not first and elsewhere.compression == budgets[1]


def test_times_and_events_of_different_lengths_are_padded(tiny):
    _, processor = tiny()
    rows = [[shown(processor, 1)], [], [shown(processor, 2, frames=4), shown(processor, 3, kind="image")]]
    told = grid_inputs(rows)
    assert told["video_grid_seconds"].tolist() == [grid_times(processor, 4), [*grid_times(processor, 2), 0, 0]]
    assert told["video_grid_events"].tolist() == [[0, 1, 2, 3], [0, 1, 0, 0]]
    assert told["video_grid_thw"].tolist() == [[4, 8, 8], [2, 8, 8]]
    assert told["image_grid_thw"].tolist() == [[1, 8, 8]]
    assert grid_inputs([[], []]) == {}


def test_one_call_has_one_budget(tiny):
    _, processor = tiny()
    with pytest.raises(AssertionError, match="one budget"):
        grid_inputs([[shown(processor, 1), shown(processor, 1, CompressionConfig("frames"))]])


def test_features_follow_the_rows(tiny):
    _, processor = tiny()
    video, picture = shown(processor, 1), shown(processor, 1, kind="image")
    features = {video: torch.ones(4, 2), picture: torch.zeros(16, 2)}
    outputs = feature_inputs([[video, picture], [], [video]], features)
    assert [len(outputs[kind].pooler_output) for kind in ("video", "image")] == [2, 1]
    assert outputs["video"].pooler_output[0] is outputs["video"].pooler_output[1] is features[video]
    assert feature_inputs([[]], {}) == {}


def test_a_model_is_at_a_budget_for_a_while_only(tiny):
    model, _ = tiny()
    before = model.compression
    other = every_token(before)
    assert other.target_frames is None and not other.enabled

    def fail() -> None:
        with at_compression(model, other):
            assert model.compression == model.config.compression == other
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert model.compression == before


def test_padding():
    assert padded([(1, 2), (), (3,)], torch.long).tolist() == [[1, 2], [0, 0], [3, 0]]
