from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_prompts import prompt, shown

from marc.inference.prompts import Prompt, end_of_visuals, expand_placeholders, pad_rows
from marc.model.modeling import token_types

IMAGE, VIDEO = 100, 101
MODEL = SimpleNamespace(config=SimpleNamespace(image_token_id=IMAGE, video_token_id=VIDEO))

texts = st.lists(st.integers(0, 99), max_size=4)
pieces = st.lists(st.tuples(texts, st.sampled_from([IMAGE, VIDEO]), st.integers(0, 5)), max_size=4)


@given(pieces, texts)
def test_placeholders_are_repeated_in_order(pieces, end):
    ids = [token for text, placeholder, _ in pieces for token in (*text, placeholder)] + end
    expanded = [token for text, placeholder, count in pieces for token in (*text, *[placeholder] * count)] + end
    assert expand_placeholders(ids, [[placeholder] * count for _, placeholder, count in pieces], MODEL) == expanded


@pytest.mark.parametrize("counts", [[], [1], [1, 2, 3]])
def test_placeholders_and_files_must_agree(counts):
    with pytest.raises(AssertionError, match="2 placeholders"):
        expand_placeholders([1, VIDEO, 2, IMAGE], [[VIDEO] * count for count in counts], MODEL)


def test_types_and_the_end_of_what_is_shown():
    ids = [1, VIDEO, VIDEO, 2, IMAGE, 3]
    assert token_types(torch.tensor([ids]), MODEL).tolist() == [[0, 2, 2, 0, 1, 0]]
    assert end_of_visuals(ids, MODEL) == 5
    assert end_of_visuals([1, 2], MODEL) == 0


@given(st.lists(st.lists(st.integers(1, 9), min_size=1), min_size=1), st.booleans())
def test_rows_are_padded(rows, left):
    padded = pad_rows(rows, 0, left=left)
    assert padded.shape == (len(rows), max(map(len, rows)))
    for row, own in zip(padded.tolist(), rows, strict=True):
        assert row == ([0] * (len(row) - len(own)) + own if left else own + [0] * (len(row) - len(own)))


def test_prompts_are_equal_where_they_say_and_show_the_same(tiny):
    model, processor = tiny(layout="events")
    video, other = shown(processor, 1), shown(processor, 1)
    asked = prompt(processor, "What?", [video])
    assert asked == prompt(processor, "What?", [video]) and hash(asked) == hash(prompt(processor, "What?", [video]))
    assert len({asked, prompt(processor, "What?", [other]), prompt(processor, "Why?", [video])}) == 3
    assert isinstance(asked, Prompt)
    assert asked.expanded(model).count(model.config.video_token_id) == video.tokens == 16
    assert len(asked.expanded(model)) == len(asked.ids) - 1 + len(video.ids)
