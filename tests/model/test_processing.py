"""Placeholders, planning inputs and texts that try to be more than texts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_inputs import noise, video_inputs

from marc.inference.prompts import expand_placeholders
from marc.model import CompressedProcessor
from marc.model.tiny import SPECIAL_TOKENS


@pytest.fixture(scope="module")
def processor(tiny) -> CompressedProcessor:
    return tiny()[1]


def test_planning_inputs_are_padded_rows(processor):
    inputs = video_inputs(
        processor,
        ["<video> <video>"],
        [noise(8, 1), noise(4, 2)],
        video_events=[[0, 0, 1, 1], [5, 6]],
        video_seconds=[[0.0, 1.0, 2.0, 3.0], [0.5, 9.0]],
        video_shares=[[10, 6], None],
    )
    assert inputs["video_grid_events"].tolist() == [[0, 0, 1, 1], [5, 6, 0, 0]]
    assert inputs["video_grid_seconds"].tolist() == [[0, 1, 2, 3], [0.5, 9, 0, 0]]
    assert inputs["video_event_shares"].tolist() == [[10, 6], [0, 0]]
    assert int((inputs["input_ids"] == processor.video_token_id).sum()) == 16 + 2 * 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"video_events": [[0, 0]]}, "video_events has 1 entries for 2 videos"),
        ({"video_events": [[0, 0], [0]]}, "2 ids for 4 grids"),
        ({"video_seconds": [[0.0] * 4, [0.0]]}, "video 1 has 1 times for 2 temporal grids"),
        ({"video_events": [[0] * 4, [0] * 2], "video_shares": [[99], None]}, "above the budget of 16"),
    ],
)
def test_what_does_not_fit_a_video_is_named(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        video_inputs(processor, ["<video> <video>"], [noise(8, 1), noise(4, 2)], **arguments)


@settings(max_examples=60)
@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "<|", "|>", "a", " "]), max_size=6).map("".join))
def test_no_text_can_smuggle_a_special_token(processor, text):
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}]
    chat = processor.apply_chat_template(messages, add_generation_prompt=True)
    harmless = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "a"}]}]
    expected = processor.apply_chat_template(harmless, add_generation_prompt=True)
    special = set(processor.tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)))

    def specials(rendered: str) -> list[int]:
        return [token for token in processor.tokenizer(rendered)["input_ids"] if token in special]

    assert specials(chat) == specials(expected)
    assert messages[0]["content"][1]["text"] == text, "the caller's conversation is left alone"


def test_a_prompt_with_one_placeholder_expands_to_what_the_processor_writes(tiny):
    """Questions about videos that are encoded already (`encode_video`) are not processed again."""
    model, processor = tiny()
    texts, seconds = (" What?", " Why is that so?"), [[0.0, 1.0, 7.0, 9.0], [0.5, 90.0]]
    inputs = video_inputs(
        processor, [f"<video>{text}" for text in texts], [noise(8, 1), noise(4, 2)], video_seconds=seconds
    )
    whole = (row[present] for row, present in zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True))
    for row, grid, text, times in zip(whole, inputs["video_grid_thw"], texts, seconds, strict=True):
        plan = processor.plan(grid)
        visual = processor.video_ids(plan.cells, plan.seconds(times))
        assert visual.count(model.config.video_token_id) == plan.tokens == 16
        turn = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}]
        chat = processor.apply_chat_template(turn, add_generation_prompt=True)
        assert expand_placeholders(processor.tokenizer(chat)["input_ids"], [visual], model) == row.tolist()


def test_saved_and_loaded_it_is_the_same(tiny, tmp_path):
    from transformers import AutoProcessor

    _, processor = tiny(layout="frames", target_frames=2, ratio=0.5)
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is type(processor)
    assert loaded.compression == processor.compression
    ours, theirs = (video_inputs(p, ["<video>!"], [noise(8, 1)]) for p in (processor, loaded))
    assert {name: value.tolist() for name, value in ours.items()} == {n: v.tolist() for n, v in theirs.items()}
