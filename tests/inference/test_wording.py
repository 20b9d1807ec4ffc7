"""Questions as the model reads them, and what is refused before anything is read."""

from types import SimpleNamespace

import pytest

from marc.data.prompts import render_question
from marc.inference.query import MEDIA, Query
from marc.inference.wording import Wording
from marc.model.tiny import build_tiny


@pytest.fixture(scope="module")
def tiny():
    model, processor = build_tiny()
    return SimpleNamespace(config=model.config, processor=processor)


@pytest.fixture
def wording(tiny):
    return Wording(tiny, "short")


def test_the_style_is_the_models_unless_it_is_given(tiny, wording):
    assert Wording(tiny).style == tiny.config.prompt_style
    query = Query("a.mp4", "What is it?")
    for own in (wording, Wording(tiny)):
        assert own.messages(query, [("video", "")])[0]["content"][-1]["text"] == render_question(
            "What is it?", style=own.style
        )


def test_a_prompt_is_the_chat_template_and_what_is_given(tiny, wording):
    query = Query((), "What is it?", "Say.")
    text = tiny.processor.apply_chat_template(wording.messages(query, []), add_generation_prompt=True)
    assert wording.texts([wording.prompt(query, []).ids]) == ["user\nSay.\nassistant\n"]
    assert wording.prompt(query, [], (5, 6)).ids == (*wording.tokens(text), 5, 6)
    assert "Say." in text and "What is it?" not in text


def test_what_is_said_stands_behind_its_video(wording):
    query = Query(
        "a.mp4", "Q?", messages=({"role": "user", "content": [{"type": MEDIA}, {"type": "text", "text": "Q?"}]},)
    )
    (message,) = wording.messages(query, [("video", "Good morning.")])
    assert message["content"] == [
        {"type": "video"},
        {"type": "text", "text": "Good morning."},
        {"type": "text", "text": "Q?"},
    ]


@pytest.mark.parametrize("question", ["", "  ", None, "word " * 100_000])
def test_what_is_no_question_or_has_no_room_is_refused(wording, question):
    with pytest.raises(ValueError, match="question"):
        wording.check(Query("a.mp4", question), asks_bare=False)


def test_a_prompt_that_is_too_long_says_by_how_much(tiny, wording, monkeypatch):
    needed = wording.prompt(Query((), "What?"), []).tokens
    monkeypatch.setattr(tiny.config.get_text_config(decoder=True), "max_position_embeddings", needed)
    wording.prompt(Query((), "What?"), [])
    with pytest.raises(ValueError, match=rf"the prompt has {needed + 1} tokens, the model has room for {needed}"):
        wording.prompt(Query((), "What?"), [], (5,))


def test_who_asks_for_the_bare_answer_first_asks_to_think_otherwise(tiny):
    wording = Wording(tiny, "video-r1")
    text = render_question("What?", style="video-r1")
    wording.check(Query("a.mp4", "What?"), asks_bare=True)
    wording.check(Query("a.mp4", "What?", text, bare_prompt="What? One word."), asks_bare=True)
    with pytest.raises(ValueError, match="bare_prompt"):
        wording.check(Query("a.mp4", "What?", text), asks_bare=True)
    with pytest.raises(ValueError, match="does not ask to think"):
        wording.check(Query("a.mp4", "What?", "What?"), asks_bare=True)
