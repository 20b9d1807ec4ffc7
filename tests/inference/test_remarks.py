"""What users are told about an answer, and what is refused before anything is read."""

from dataclasses import replace
from unittest import mock

import pytest

from marc import VideoAssistant
from marc.inference.remarks import about_options
from marc.model.tiny import build_tiny
from marc.types import GenerationOptions
from marc.video.options import FrameOptions

SHORT = GenerationOptions(max_new_tokens=2)


@pytest.fixture(scope="module")
def assistant(checkpoint) -> VideoAssistant:
    return VideoAssistant.from_pretrained(checkpoint, memory=None, generation=SHORT, device="cpu")


@pytest.fixture(scope="module")
def of_the_world(tmp_path_factory) -> VideoAssistant:
    """A model that says of itself that it goes with the embedded encoder."""
    folder = tmp_path_factory.mktemp("world")
    model, processor = build_tiny()
    model.config.embedder = "tiny"
    for part in (model, processor):
        part.save_pretrained(folder)
    return VideoAssistant.from_pretrained(str(folder), memory=None, generation=SHORT, device="cpu")


def test_of_a_usual_answer_there_is_nothing_to_say(assistant, clip):
    answer = assistant.ask(clip, "What?")
    assert answer.warnings == ()
    assert answer.visual_tokens_after == answer.visual_tokens_budget == 4


def test_a_budget_that_is_not_spent_is_explained(assistant, clip):
    with mock.patch.object(assistant.backend.processor, "compression", assistant.backend.compression):
        before = assistant.backend.compression
        assistant.backend.compression = replace(before, layout="frames", target_frames=1, visual_tokens=40)
        try:
            answer = assistant.ask(clip, "What?")
        finally:
            assistant.backend.compression = before
    assert (answer.visual_tokens_after, answer.visual_tokens_budget) == (4, 40)
    assert answer.warnings == ("4 of 40 visual tokens were used: what remains is 1 grid of at most 2 x 2 tokens",)


def test_a_rule_that_takes_more_than_its_budget_says_so(checkpoint, clip):
    assistant = VideoAssistant.from_pretrained(
        checkpoint, memory=None, generation=SHORT, device="cpu", compression={"layout": "evs", "visual_tokens": 2}
    )
    answer = assistant.ask(clip, "What?")
    assert (answer.visual_tokens_after, answer.visual_tokens_budget) == (4, 2)
    assert answer.warnings == ("4 visual tokens, not 2: the layout evs keeps no fewer of this video",)


def test_a_rule_that_has_no_more_to_keep_says_so(checkpoint, clip):
    assistant = VideoAssistant.from_pretrained(
        checkpoint, memory=None, generation=SHORT, device="cpu", compression={"layout": "last", "visual_tokens": 20}
    )
    answer = assistant.ask(clip, "What?")
    assert answer.visual_tokens_after == 8
    assert answer.warnings == ("8 of 20 visual tokens were used: the layout last keeps no more of this video",)


def test_a_model_of_generated_videos_says_so_of_others(of_the_world, clip):
    (remark,) = of_the_world.ask(clip, "What?").warnings
    assert remark.startswith("this model knows generated videos only")
    info = of_the_world.view(clip, "What?").info
    generated = replace(info, width=224, height=224, fps=20.0)
    with mock.patch("marc.inference.viewing.probe", return_value=generated):
        assert of_the_world.ask(clip, "What?").warnings == ()


def test_frames_that_show_each_event_once_are_remarked_upon(remembering, clip):
    remembering.frames = FrameOptions(max_frames=6)
    (remark,) = remembering.ask(clip, "What happens in scene 1?").warnings
    assert remark.startswith("6 frames show most events once") and remark.endswith("raise --max-frames")
    remembering.frames = FrameOptions(max_frames=24)
    assert remembering.ask(clip, "What happens in scene 1?").warnings == ()


@pytest.mark.parametrize(
    ("video", "question", "message"),
    [
        ("a.mp4", "", "the question is empty"),
        ("a.mp4", " \n", "the question is empty"),
        ("a.mp4", None, "a question is a text, got NoneType"),
        (["a.mp4", None], "What?", "a question is about video files, Clips or Frames, got NoneType"),
        ([], "What?", r"a question is about a video file or a list of some, got \[\]"),
        (3, "What?", "a question is about a video file or a list of some, got 3"),
        ("a.mp4", "why " * 3000, r"the question has \d+ tokens, the model has room for 4096"),
    ],
)
def test_what_is_no_question_is_refused_before_anything_is_read(video, question, message, assistant):
    with (
        mock.patch("marc.inference.viewing.probe", side_effect=AssertionError("read")),
        pytest.raises(ValueError, match=message),
    ):
        assistant.ask(video, question)


def test_one_text_is_no_list_of_questions(assistant, clip):
    with pytest.raises(ValueError, match="ask_many takes a list of questions"):
        assistant.ask_many(clip, "What?")


@pytest.mark.parametrize("answer", ["A", "a", "A.", "red", "A. red", "B. blue"])
def test_an_answer_that_was_offered_is_not_remarked_upon(answer):
    assert not list(about_options(["A. red", "B. blue"], answer))
    assert not list(about_options([], answer))


@pytest.mark.parametrize("answer", ["C", "", "green", "AB"])
def test_an_answer_that_was_not_offered_is(answer):
    assert list(about_options(["A. red", "B. blue"], answer)) == [
        f"the answer {answer!r} is none of those that were offered"
    ]
