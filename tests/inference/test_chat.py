"""Conversations: equal to reading all of it anew, without reading anything twice; and told piece by piece."""

import threading
from unittest import mock

import pytest
import torch
from PIL import Image

from marc import VideoAssistant
from marc.inference.chat import answer_pieces, streamed
from marc.types import GenerationOptions

QUESTIONS = ("What is shown?", "And what comes after that?", "How many?", "Why?")
SHORT = GenerationOptions(max_new_tokens=6)


@pytest.fixture
def assistant(stock_checkpoint) -> VideoAssistant:
    return VideoAssistant.from_pretrained(stock_checkpoint, memory=None, generation=SHORT, device="cpu")


class Read:
    """Counts the tokens that a language model reads."""

    def __init__(self, assistant):
        self.tokens = 0
        self._hook = assistant.backend.model.model.language_model.register_forward_pre_hook(
            self._count, with_kwargs=True
        )

    def _count(self, module, args, kwargs):
        self.tokens += kwargs["inputs_embeds"].shape[1]


def anew(assistant, chat):
    """The answer to the last question, had the whole conversation been read at once."""
    *before, _ = chat.messages
    prompt = assistant.wording.prompt_of(before, [each.video for each in chat._seen])
    (output,) = assistant.backend.generate([prompt], assistant.generation)
    return assistant.backend.processor.batch_decode([output], skip_special_tokens=True)[0]


def test_every_turn_is_what_reading_all_of_it_anew_gives(assistant, clip, tmp_path):
    Image.new("RGB", (56, 56), "red").save(tmp_path / "red.png")
    chat = assistant.chat([clip, tmp_path / "red.png"])
    for question in QUESTIONS:
        answer = chat.ask(question)
        assert answer.output == anew(assistant, chat)
        assert (answer.question, len(answer.videos)) == (question, 2)
    assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 4


def test_a_first_turn_is_a_question(assistant, clip):
    asked = assistant.ask(clip, QUESTIONS[0])
    told = assistant.chat(clip).ask(QUESTIONS[0])
    assert (told.output, told.videos, told.frames) == (asked.output, asked.videos, asked.frames)


def test_nothing_is_read_twice(assistant, clip):
    """What a turn reads is its question and the answer before it, at most; the video in the first turn alone."""
    chat, read = assistant.chat(clip), Read(assistant)
    chat.ask("What is shown?")
    first, read.tokens = read.tokens, 0
    with mock.patch.object(assistant.backend, "encode", side_effect=AssertionError("encoded again")):
        chat.ask("And?")
    turn = len(assistant.wording.tokens("<|im_end|>\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"))
    question = len(assistant.wording.tokens(chat.messages[2]["content"][0]["text"]))
    assert read.tokens <= turn + question + 2 * SHORT.max_new_tokens < first


def test_an_answer_that_is_rendered_otherwise_is_read_again(assistant, clip, monkeypatch):
    """Templates may leave reasoning out of earlier turns: what was kept of it goes."""
    chat = assistant.chat(clip)
    chat.ask("What is shown?")
    chat.messages[1]["content"][0]["text"] = "Something else was said."
    assert chat.ask("And?").output == anew(assistant, chat)


def test_the_same_seed_gives_the_same_conversation(checkpoint, clip):
    options = GenerationOptions(max_new_tokens=12, temperature=1.0, seed=3)
    assistant = VideoAssistant.from_pretrained(checkpoint, memory=None, generation=options, device="cpu")
    chats = (assistant.chat(clip), assistant.chat(clip))
    outputs = [[chat.ask(question).output for question in QUESTIONS[:2]] for chat in chats]
    assert outputs[0] == outputs[1]


def test_a_conversation_about_a_stretch_stays_there(remembering, clip):
    chat = remembering.chat(clip, start=4, end=8)
    for question in ("What happens in scene 1?", "What happens in scene 2?"):
        assert all(4 - 0.1 <= second < 8 for second in chat.ask(question).videos[0].frame_seconds)


def test_a_conversation_for_which_there_is_no_room_is_refused(assistant, clip):
    chat = assistant.chat(clip)
    chat.ask("What?")
    with pytest.raises(ValueError, match="the model has room for"):
        chat.ask("why " * 5000)
    assert chat.ask("And?").output == anew(assistant, chat), "the conversation goes on"


def test_pieces_make_up_the_output(assistant, clip):
    asked = assistant.ask(clip, QUESTIONS[0])
    assert "".join(assistant.stream(clip, QUESTIONS[0])) == asked.output
    chat = assistant.chat(clip)
    assert "".join(chat.stream(QUESTIONS[0])) == chat.answer.output == asked.output
    assert "".join(chat.stream(QUESTIONS[1])) == chat.answer.output == anew(assistant, chat)


def test_whoever_stops_listening_stops_the_work(assistant, clip):
    assistant.generation = GenerationOptions(max_new_tokens=400)
    read = Read(assistant)
    with mock.patch("marc.inference.listening._Text.put", _tell_every_token):
        pieces = assistant.stream(clip, "What?")
        next(pieces)
        pieces.close()
    assert read.tokens < 200
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("streamed")]


def _tell_every_token(self, value):
    self.on_finalized_text("x")


def test_an_output_in_which_no_word_ends_can_be_stopped(assistant, clip):
    assistant.generation = GenerationOptions(max_new_tokens=40)
    tokenizer = type(assistant.backend.processor.tokenizer)
    with mock.patch.object(tokenizer, "decode", lambda self, token_ids, **_: "w" * len(token_ids)):
        answer = assistant.chat(clip).ask("What?", lambda text: False)
    assert answer.output_tokens < 5


def test_what_the_work_raises_is_raised(assistant, tmp_path):
    with pytest.raises(ValueError, match=r"gone\.mp4"):
        list(assistant.stream(tmp_path / "gone.mp4", "What?"))
    with pytest.raises(KeyError):
        list(streamed(lambda tell: {}["missing"]))
    assert list(streamed(lambda tell: [tell("a"), tell("b")])) == ["a", "b"]


@torch.no_grad()
def test_cached_turns_give_the_logits_of_a_full_pass(assistant, clip):
    """Not only the same words: the hidden state behind the last turn agrees to rounding."""
    chat = assistant.chat(clip)
    for question in QUESTIONS[:2]:
        chat.ask(question)
    turns, model = chat._turns, assistant.backend.model
    prompt = assistant.wording.prompt_of(chat.messages[:3], [each.video for each in chat._seen])
    fresh = assistant.backend.converse()
    fresh._read(prompt)
    turns._read(prompt)
    for kept, whole in zip(turns._cache.layers, fresh._cache.layers, strict=True):
        for name in ("keys", "values", "recurrent_states"):
            if (one := getattr(kept, name, None)) is not None and isinstance(one, torch.Tensor):
                torch.testing.assert_close(one, getattr(whole, name), atol=1e-4, rtol=1e-4)
    assert model.training is False


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("<think>red < blue, then green</think><answer>green</answer>", "green"),
        ("  <think>\nso\n</think>\n<answer> a green one </answer> and more", "a green one"),
        ("<answer>1 < 2</answer>", "1 < 2"),
        ("<answer>cut of", "cut of"),
        ("a red square\n", "a red square"),
        ("<b>bold</b>", "<b>bold</b>"),
        ("1 < 2 and 3 <", "1 < 2 and 3"),
        ("<think>I write <answer>B</answer> maybe</think><answer>C</answer>", "C"),
        ("<think>so</think> a red square", "a red square"),
        ("<think>without an end", ""),
        ("", ""),
    ],
)
def test_the_answer_is_told_without_the_reasoning(output, answer):
    """Whatever the pieces in which the output comes; nothing that was told is taken back."""
    for size in (1, 2, 3, 7, 100):
        pieces = [output[start : start + size] for start in range(0, len(output), size)]
        assert "".join(answer_pieces(pieces)) == answer


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("Hm, it is red.</think><answer>C</answer>", "Hm, it is red.\nC"),
        ("The answer is <answer>C</answer>", "The answer is\nC"),
    ],
)
def test_what_turns_out_to_be_no_answer_is_told_from_it(output, told):
    for size in (1, 3):
        pieces = [output[start : start + size] for start in range(0, len(output), size)]
        assert "".join(answer_pieces(pieces)) == told
