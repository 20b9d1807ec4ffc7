"""What a video costs in the prompt is known beforehand, and never more than its budget."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_inputs import PIXELS, noise, video_inputs

from marc.compression.config import CompressionConfig, parse_budget
from marc.compression.plan import VideoPlan
from marc.inference.video_input import VideoInput, VisualPatches, grid_inputs
from marc.model.family import families
from marc.model.tiny import build_tiny

CORPUS = [" seconds"] * 8
"""As in the tokenizers of real checkpoints, " seconds" is one token and a digit another."""


@pytest.fixture(scope="module", params=[family.name for family in families()])
def made(request):
    return build_tiny(family=request.param, corpus=CORPUS, max_pixels=PIXELS)


def cost_in_prompt(model, ids: torch.Tensor) -> int:
    """Tokens from the first to the last mark of what is shown."""
    config = model.config
    marks = ((ids == config.vision_start_token_id) | (ids == config.vision_end_token_id)).nonzero()
    return int(marks[-1] - marks[0]) + 1


@pytest.mark.parametrize("budget", ["full", "events", "frames:2", "tokens:5", "prompt:64", "prompt:30", "prompt:14"])
def test_the_prompt_holds_what_was_planned(budget, made):
    model, processor = made
    model.compression = processor.compression = parse_budget(budget, CompressionConfig())
    frames, events, seconds = noise(16, 1), [0, 0, 1, 1, 2, 3, 3, 3], [2.0 * grid for grid in range(8)]
    inputs = video_inputs(processor, ["<video> What?"], [frames], video_events=[events], video_seconds=[seconds])
    plan = processor.plan(inputs["video_grid_thw"][0], events=events, seconds=seconds)
    cost = cost_in_prompt(model, inputs["input_ids"][0])
    assert cost == processor.prompt_tokens(plan, seconds)
    assert budget in ("full", "events", "frames:2", "tokens:5") or cost <= int(budget.removeprefix("prompt:"))
    assert (inputs["input_ids"] == model.config.video_token_id).sum() == plan.tokens
    with torch.no_grad():
        read = model(**inputs).logits
        known = {name: value for name, value in inputs.items() if name != "pixel_values_videos"}
        again = model(**known, mm_encoder_outputs=model.encode_video(**inputs)).logits
        assert model.generate(**inputs, max_new_tokens=2).shape[1] == inputs["input_ids"].shape[1] + 2
    assert torch.equal(read, again)


@settings(max_examples=70)
@given(st.data())
def test_counts_of_random_videos_and_budgets(made, data):
    model, processor = made
    grids, height, width = (data.draw(st.integers(1, most)) for most in (40, 9, 9))
    cuts = sorted(data.draw(st.lists(st.booleans(), min_size=grids - 1, max_size=grids - 1)))
    events = tuple(sum(cuts[:grid]) for grid in range(grids))
    budget = data.draw(
        st.sampled_from(["full", "events", "events:3", "frames", "tokens:7", "prompt:40", "prompt:400"])
    )
    compression = parse_budget(budget, CompressionConfig())
    seconds = tuple(0.5 * frame for frame in range(2 * grids))
    merge = processor.video_processor.merge_size
    patches = VisualPatches("video", (grids, merge * height, merge * width), merge, "", seconds, events)
    video = VideoInput.of(patches, processor, compression)
    remains = video.plan or VideoPlan.whole(grids, (height, width))
    text = processor.video_text(remains.cells, remains.seconds(video.seconds))
    assert list(video.ids) == processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert video.ids.count(model.config.video_token_id) == video.tokens
    assert video.prompt_tokens == processor.prompt_tokens(remains, video.seconds)
    if budget.startswith("prompt"):
        assert video.prompt_tokens <= compression.prompt_tokens
        model.compression = compression
        (grid,) = model.model.plan_grids(
            **{key: value for key, value in grid_inputs([[video]]).items() if key != "image_grid_thw"}
        )
        assert grid.plan == video.plan, "the model plans as the prompt was written"


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_5", "qwen3_vl_moe"])
def test_text_goes_on_behind_the_larger_side_of_an_uneven_block(family):
    """Five tokens are rows of three and two cells: text goes on three places behind their first."""
    model, processor = build_tiny(family=family, corpus=CORPUS, max_pixels=PIXELS)
    model.compression = processor.compression = CompressionConfig(visual_tokens=5)
    inputs = video_inputs(
        processor, ["<video> What?"], [noise(4, 1)], video_events=[[0, 0]], video_seconds=[[0.0, 1.0]]
    )
    positions, _ = model.model.get_rope_index(**{name: each for name, each in inputs.items() if "pixel" not in name})
    shown = (inputs["input_ids"][0] == model.config.video_token_id).nonzero()[:, 0]
    begin = positions[0, 0, shown[0]].item()
    assert positions[:, 0, shown].tolist() == [
        [begin] * 5, [begin + row for row in (0, 0, 0, 1, 1)], [begin + column for column in (0, 1, 2, 0, 1)]
    ]  # fmt: skip
    behind = positions[:, 0, shown[-1] + 1 :]
    assert behind.tolist() == [[begin + 3 + index for index in range(behind.shape[1])]] * 3


def test_one_frames_budget_costs_at_most_200_tokens(made):
    """64 frames of 128 tokens at one a second in five events; every token costs about 4,400."""
    _, processor = made
    merge = processor.video_processor.merge_size
    seconds = tuple(float(frame) for frame in range(64))
    events = tuple(grid * 5 // 32 for grid in range(32))
    patches = VisualPatches("video", (32, 8 * merge, 16 * merge), merge, "", seconds, events)
    video = VideoInput.of(patches, processor, CompressionConfig())
    assert video.tokens == 128 <= video.prompt_tokens <= 200
    full = VideoInput.of(patches, processor, CompressionConfig(target_frames=None))
    assert 4096 + 2 <= full.prompt_tokens <= 4450


def test_a_prompt_without_room_for_one_token_is_refused(made):
    _, processor = made
    least = processor.event_overhead(0.0) + 3
    grid, seconds = (2, 4, 4), [0.0, 0.0]
    compression = CompressionConfig(prompt_tokens=least)
    assert processor.plan(grid, compression, seconds=seconds).tokens == 1
    with pytest.raises(
        ValueError, match=f"a budget of {least - 1} tokens in the prompt: a video costs at least {least};"
    ):
        processor.plan(grid, CompressionConfig(prompt_tokens=least - 1), seconds=seconds)
