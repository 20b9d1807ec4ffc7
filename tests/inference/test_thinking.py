"""Answer first: which bare answers count, what they are worth, and that all else is as if they had not been asked."""

import math
import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_backend import Scripted
from tiny_models import each_with
from tiny_prompts import QUESTIONS, prompt, shown
from transformers import LogitsProcessor, LogitsProcessorList

from marc import VideoAssistant
from marc.data.prompts import render_question
from marc.inference.hf import HFBackend, complete
from marc.inference.listening import Listener
from marc.inference.query import Query
from marc.inference.thinking import GreedyOutput, beginning, think_where_unsure
from marc.options import OptionError
from marc.types import GenerationOptions

NEW = 6
SHORT = GenerationOptions(NEW)
ALWAYS = GenerationOptions(NEW, think_below=1.01)
NEVER = GenerationOptions(NEW, think_below=0.0)

logprobs = st.lists(st.floats(-5, 0), min_size=1, max_size=4)


@given(st.lists(logprobs, max_size=6), st.floats(0, 1.2))
def test_whatever_is_less_probable_is_thought_about_once_and_the_others_are_told_then(rows, threshold):
    bare = [GreedyOutput([number] * len(row), row) for number, row in enumerate(rows)]
    told = []

    def think(numbers):
        told.append(list(numbers))
        return [[100 + number] * 3 for number in numbers]

    replies = think_where_unsure(bare, threshold, given=(7, 8), accept=told.append, think=think)
    unsure = [number for number, row in enumerate(rows) if math.exp(sum(row)) < threshold]
    assert told == ([unsure] if unsure else []) + [number for number in range(len(rows)) if number not in unsure]
    for number, (row, reply) in enumerate(zip(rows, replies, strict=True)):
        assert reply.has_thought == (number in unsure)
        assert reply.tokens == ([100 + number] * 3 if reply.has_thought else [number] * len(row))
        assert reply.whole == [*([] if reply.has_thought else [7, 8]), *reply.tokens]
        assert reply.generated == len(row) + (3 if reply.has_thought else 0)
        assert reply.probability == pytest.approx(math.exp(sum(row)))


def test_nobody_is_told_an_answer_that_a_failure_takes_back():
    def fail(numbers):
        raise MemoryError

    told = []
    with pytest.raises(MemoryError):
        think_where_unsure([GreedyOutput([1], [0.0]), GreedyOutput([1], [-5.0])], 0.5, accept=told.append, think=fail)
    assert told == []


@pytest.mark.parametrize("content", ["What is shown?", [{"type": "text", "text": "?"}, {"type": "video"}], [], ["?"]])
def test_a_message_that_ends_with_no_text_is_refused_by_name(content):
    query = Query("a.mp4", "?", messages=({"role": "user", "content": content},), bare_prompt="Say it.")
    with pytest.raises(ValueError, match="last message"):
        query.bare()


@pytest.mark.parametrize(("threshold", "thinks"), [(0.0, False), (0.5, False), (math.nextafter(0.5, 1), True)])
def test_a_threshold_that_is_reached_is_enough(threshold, thinks):
    (reply,) = think_where_unsure(
        [GreedyOutput([1], [math.log(0.5)])], threshold, accept=lambda _: None, think=lambda _: [[2]]
    )
    assert reply.has_thought is thinks


class Scores(LogitsProcessor):
    """Remembers what each token of one row is chosen from."""

    def __init__(self):
        self.steps = []

    def __call__(self, input_ids, scores):
        self.steps.append(scores[0].clone())
        return scores


def alone(backend, asked):
    """A prompt's greedy tokens by transformers' own loop, and their log-probabilities by its logits."""
    scores = Scores()
    how = {"max_new_tokens": NEW, "do_sample": False, "logits_processor": LogitsProcessorList([scores])}
    (tokens,) = complete(backend.model, [asked], share=False, **how)
    return tokens, [math.log(step.softmax(-1)[token]) for token, step in zip(tokens, scores.steps, strict=True)]


@pytest.fixture
def asked_of(tiny):
    """A backend, and questions about two videos and about nothing."""

    def make(**compression):
        backend = HFBackend(*tiny(**compression))
        videos = [shown(backend.processor, seed, events=(0, 0, 1, 2)) for seed in (1, 2)]
        backend.encode(videos)
        prompts = [prompt(backend.processor, text, [video]) for video in videos for text in QUESTIONS]
        return backend, [*prompts, prompt(backend.processor, "Nothing?")]

    return make


@each_with("compression", {"layout": "frames"}, {"layout": "events", "visual_tokens": 3})
def test_probabilities_are_those_of_the_models_logits_in_batches_as_alone(asked_of, compression):
    backend, prompts = asked_of(**compression)
    together = backend.greedy(prompts, SHORT)
    for asked, output in zip(prompts, together, strict=True):
        tokens, expected = alone(backend, asked)
        assert output.tokens == tokens
        assert output.logprobs == pytest.approx(expected, abs=1e-4)
        assert output.probability == pytest.approx(math.exp(sum(expected)), rel=1e-3)
        (by_itself,) = backend.greedy([asked], SHORT)
        assert by_itself.tokens == tokens and by_itself.logprobs == pytest.approx(expected, abs=1e-4)
    assert [output.tokens for output in together] == backend.generate(prompts, SHORT)


def test_a_checkpoints_sampling_changes_no_probability(asked_of, monkeypatch):
    backend, prompts = asked_of(layout="events")
    expected = backend.greedy(prompts, SHORT)
    warping = {"do_sample": True, "temperature": 0.1, "top_k": 2, "top_p": 0.3, "min_p": 0.9, "typical_p": 0.2}
    penalties = {"repetition_penalty": 1.5, "no_repeat_ngram_size": 1, "epsilon_cutoff": 0.1, "eta_cutoff": 0.1}
    for name, value in {**warping, **penalties}.items():
        monkeypatch.setattr(backend.model.generation_config, name, value)
    assert backend.greedy(prompts, GenerationOptions(NEW, temperature=0.7, top_p=0.2)) == expected


def test_what_is_too_improbable_is_given_up_at_that_token(asked_of):
    backend, prompts = asked_of(layout="events")
    whole = backend.greedy(prompts, SHORT)
    reached = sorted(math.exp(sum(output.logprobs[:2])) for output in whole)
    least = reached[len(reached) // 2]  # half of the rows are above it after two tokens
    outputs = backend.greedy(prompts, GenerationOptions(NEW, think_below=least))
    for output, all_of_it in zip(outputs, whole, strict=True):
        products = [math.exp(sum(all_of_it.logprobs[: end + 1])) for end in range(len(all_of_it.tokens))]
        kept = next((end + 1 for end, product in enumerate(products) if product < least * (1 - 1e-6)), len(products))
        assert len(output.tokens) == len(output.logprobs) == kept
        assert output.logprobs == pytest.approx(all_of_it.logprobs[:kept], abs=1e-5)
    assert len({len(output.tokens) for output in outputs}) > 1


@pytest.fixture
def nothing_is_given(monkeypatch):
    """Bare answers that are generated from their first token on."""
    monkeypatch.setattr("marc.inference.thinking.BEGINNING", "")


@pytest.fixture
def assistant(stock_checkpoint) -> VideoAssistant:
    return VideoAssistant.from_pretrained(
        stock_checkpoint, memory=None, generation=SHORT, device="cpu", prompt_style="video-r1"
    )


def test_always_thinking_says_what_it_says_today(assistant, clip):
    queries = [assistant.query(clip, "What?"), assistant.query(clip, "Which?", options=["A. a", "B. b"])]
    expected = assistant.ask_batch(queries)
    assistant.generation = ALWAYS
    heard = [[], []]
    answers = assistant.ask_batch(queries, [Listener(each.append) for each in heard])
    for answer, before, pieces in zip(answers, expected, heard, strict=True):
        assert (answer.output, answer.output_tokens, answer.is_cut) == (before.output, before.output_tokens, True)
        assert "".join(pieces) == answer.output and answer.input_tokens == before.input_tokens
        assert (before.probability, before.has_thought, before.generated_tokens) == (None, None, NEW)
        assert answer.has_thought and 0 < answer.probability < 1
        assert answer.generated_tokens == NEW + 1, "the bare answer is given up at once"


class SignByItself:
    """Tokens are runs of letters, perhaps with one sign before them, and single signs, as in Qwen's vocabulary."""

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [hash(each) for each in re.findall(r"[^a-zA-Z]?[a-zA-Z]+|.|\n", text)]}


def test_what_a_bare_answer_begins_with_is_in_it_whatever_it_is(tiny):
    whole = tiny()[1].tokenizer
    assert whole.decode(beginning(whole)) == "<answer>"
    assert beginning(SignByItself()) == (hash("<answer"),), "the tag's last sign may be one with the answer's first"


def test_a_bare_answer_goes_on_from_its_tag(assistant, clip):
    """The output is what the model says behind the tag, and the tag counts as part of the prompt."""
    query = assistant.query(clip, "Which?", options=["A. a", "B. b"])
    before = assistant.ask(clip, "Which?", prompt=query.bare().prompt)
    given, asked = beginning(assistant.backend.processor.tokenizer), []
    generate = assistant.backend.generate
    assistant.backend.generate = lambda prompts, *more: asked.extend(prompts) or generate(prompts, *more)
    assistant.ask(clip, "Which?", prompt=query.bare().prompt)
    (tokens,) = generate([replace(asked[0], ids=(*asked[0].ids, *given))], SHORT)
    assistant.generation = NEVER
    answer = assistant.ask_batch([query])[0]
    assert answer.output == assistant.backend.processor.decode([*given, *tokens], skip_special_tokens=True)
    assert answer.input_tokens == before.input_tokens + len(given)
    assert answer.output_tokens == answer.generated_tokens == len(tokens)
    pieces = []
    assert (
        assistant.chat(clip).ask("Which?", pieces.append).output.startswith("<answer>") and "".join(pieces)[0] == "<"
    )
    assert "".join(assistant.stream(clip, "Which?", options=["A. a", "B. b"])) == answer.output


@pytest.mark.usefixtures("nothing_is_given")
def test_never_thinking_says_what_the_bare_style_does(assistant, clip):
    options = ["A. a", "B. b"]
    bare = render_question("Which?", problem_type="multiple choice", options=options, style="short")
    expected = assistant.ask(clip, "Which?", options=options, prompt=bare)
    assistant.generation = NEVER
    answer = assistant.ask(clip, "Which?", options=options)
    assert (answer.output, answer.input_tokens) == (expected.output, expected.input_tokens)
    assert answer.generated_tokens == answer.output_tokens == NEW and answer.has_thought is False
    assert "".join(assistant.stream(clip, "Which?", options=options)) == expected.output
    many = assistant.ask_many(clip, ["What?", "Which?"])
    assert [each.output for each in many] == [assistant.ask(clip, each).output for each in ("What?", "Which?")]


@pytest.mark.usefixtures("nothing_is_given")
@pytest.mark.parametrize(("generation", "style"), [(ALWAYS, "video-r1"), (NEVER, "short")])
def test_turns_of_a_conversation_are_those_of_one_style(assistant, stock_checkpoint, clip, generation, style):
    other = VideoAssistant.from_pretrained(
        stock_checkpoint, memory=None, generation=SHORT, device="cpu", prompt_style=style
    )
    expected, chat = other.chat(clip), assistant.chat(clip)
    assistant.generation = generation
    for question in QUESTIONS:
        pieces = []
        answer = chat.ask(question, pieces.append)
        assert "".join(pieces) == answer.output == expected.ask(question).output
        assert answer.has_thought == (style == "video-r1") and answer.probability is not None
    assert chat.messages == expected.messages


class Unsure(Scripted):
    """Is sure of every other question, and says how often it was asked to think."""

    def greedy(self, prompts, options, clock=None):
        self.bare = [self.processor.decode(each.ids) for each in prompts]
        outputs = self.processor.tokenizer(["bare</answer>"] * len(prompts))["input_ids"]
        return [GreedyOutput(tokens, [0.0 if row % 2 else -1.0]) for row, tokens in enumerate(outputs)]

    def generate(self, prompts, options, clock=None, listeners=()):
        self.thought = [self.processor.decode(each.ids) for each in prompts]
        self.heard = list(listeners)
        return self.processor.tokenizer(["<think>so</think><answer>thought</answer>"] * len(prompts))["input_ids"]


def test_each_question_and_its_listener_goes_its_own_way(clip):
    backend = Unsure()
    assistant = VideoAssistant(
        backend, prompt_style="video-r1", generation=GenerationOptions(think_below=0.5, temperature=0.3)
    )
    heard = [[] for _ in range(3)]
    listeners = [Listener(each.append) for each in heard]
    queries = [Query(clip, f"What {number}?") for number in range(3)]
    answers = assistant.ask_batch(queries, listeners)
    assert [answer.answer for answer in answers] == ["thought", "bare", "thought"]
    assert [answer.has_thought for answer in answers] == [True, False, True]
    assert heard == [[], ["<answer>bare</answer>"], []] and backend.heard == [listeners[0], listeners[2]]
    assert [Counter("What 0?" in text for text in texts)[True] for texts in (backend.bare, backend.thought)] == [1, 1]
    assert not any("<think>" in text for text in backend.bare) and len(backend.thought) == 2
    assert all(text.endswith("<answer>") for text in backend.bare)
    assert all("<think>" in text for text in backend.thought)


def test_what_cannot_be_asked_twice_is_refused(assistant, clip):
    assistant.generation = NEVER
    with pytest.raises(ValueError, match="needs one for the bare answer, too"):
        assistant.ask(clip, "What?", prompt="Think in <think> tags: what?")
    with pytest.raises(ValueError, match=r"choose a prompt style that asks to think \(video-r1, video-r1-train\)"):
        assistant.ask(clip, "What?", prompt="What?")
    with pytest.raises(OptionError, match=r"^think_below needs the probabilities of tokens"):
        GenerationOptions(think_below=0.5, static=True)
    with pytest.raises(OptionError, match=r"^think_below must be a number >= 0 or none"):
        GenerationOptions(think_below=-0.5)
