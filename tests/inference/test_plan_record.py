"""A plan that travels as bytes is the plan that was made here, for every layout and budget."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import of

from marc.inference.plan_record import PlanRecord
from marc.inference.video_input import VideoInput, VisualPatches
from marc.inference.vllm_items import PLAN, joined, planned_item
from marc.types import Frames

CHANGES = [
    {},
    {"target_frames": None},
    {"layout": "frames", "target_frames": 2},
    {"visual_tokens": 3},
    {"tower_layer": 1},
    {"layout": "frames", "tower_layer": ((1, 4),)},
    {"target_frames": 1, "visual_tokens": 24, "prompt_tokens": 24},
]


def video(processor, compression, *, shares=None, seed=0, events=(0, 0, 1, 1, 1, 2)) -> VideoInput:
    rgb = np.random.default_rng(seed).integers(0, 256, (2 * len(events), 28, 28, 3), np.uint8)
    frames = Frames(rgb, np.arange(len(rgb)) / 2, "noise")
    patches = VisualPatches.of_frames(processor, frames, events)
    return VideoInput.of(patches, processor, replace(processor.compression, **compression), shares=shares)


@pytest.mark.parametrize("compression", CHANGES)
def test_a_plan_survives_the_way(tiny, compression):
    processor = tiny()[1]
    seen = video(processor, compression)
    record = PlanRecord.from_bytes(PlanRecord.of(seen).to_bytes())
    assert record == PlanRecord.of(seen)
    grid = record.grid(seen.patches.grid_thw, seen.patches.merge)
    assert (grid.plan, tuple(grid[:3]), grid.seconds) == (seen.plan, seen.patches.grid_thw, seen.seconds)
    if seen.plan is not None:
        assert grid.plan_in_cells(seen.patches.merge).tokens == seen.tokens


@of("qwen2_5_vl")
def test_what_is_placed_by_features_is_refused(tiny):
    with pytest.raises(ValueError, match="layout random: this engine numbers tokens before"):
        PlanRecord.of(video(tiny()[1], {"layout": "random"}))


@of("qwen2_5_vl")
def test_whatever_changes_what_is_seen_changes_the_bytes(tiny):
    processor = tiny()[1]
    seen = [video(processor, {"target_frames": 2, **changes}) for changes in CHANGES]
    seen.append(video(processor, {"target_frames": 2}, shares=(1, 2, 3)))
    seen.append(video(processor, {"target_frames": 2}, events=(0, 1, 1, 1, 1, 2)))
    seen.append(video(processor, {"target_frames": 2, "duplicates": 0.1}))
    records = {PlanRecord.of(each).to_bytes() for each in seen}
    assert len(records) == len(seen)
    later = replace(PlanRecord.of(seen[0]), seconds=tuple(second + 1 for second in seen[0].seconds))
    assert later.to_bytes() not in records


@of("qwen2_5_vl")
def test_items_are_joined_as_a_processor_gives_them(tiny):
    processor = tiny()[1]
    short, long = video(processor, {}, events=(0, 0)), video(processor, {}, seed=1)
    together = joined([planned_item(short), planned_item(long)])
    assert torch.equal(together["pixel_values_videos"], torch.cat([short.patches.pixels, long.patches.pixels]))
    assert together["video_grid_thw"].tolist() == [list(short.patches.grid_thw), list(long.patches.grid_thw)]
    assert [PlanRecord.from_bytes(each.numpy().tobytes()) for each in together[PLAN]] == [
        PlanRecord.of(short),
        PlanRecord.of(long),
    ]
