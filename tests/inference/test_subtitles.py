"""Subtitles find events and, if asked, stand in the prompt, where their tokens are counted."""

import os
from unittest import mock

import pytest

from marc.inference.subtitles import LazySubtitles, said_in
from marc.types import Event
from marc.video import VideoError
from marc.video.options import SubtitleOptions
from marc.video.subtitles import SubtitleLine, Subtitles

SAID = """1
00:00:00,500 --> 00:00:02,000
The door opens.

2
00:00:05,000 --> 00:00:07,000
A zebra walks in.

3
00:00:09,000 --> 00:00:11,500
<i>Everybody laughs.</i>
"""
ZEBRA = "\nThis video's subtitles are listed below:\n5.0-7.0 s: A zebra walks in.\n"


@pytest.fixture
def spoken(clip, tmp_path):
    """The clip of three scenes, with a file of subtitles beside it."""
    video = tmp_path / "spoken.mp4"
    os.link(clip, video)
    video.with_suffix(".srt").write_text(SAID)
    return video


def prompt_text(assistant, *arguments, **options):
    """The text that the model reads for a question."""
    with mock.patch.object(assistant.backend, "generate", return_value=[[1]]) as generate:
        assistant.ask(*arguments, **options)
    return assistant.backend.processor.tokenizer.decode(generate.call_args.args[0][0].ids)


def test_what_is_said_finds_events(remembering, spoken, clip):
    """By its pictures the question is about scene 0, by its words about scene 1: together, one of both wins."""
    remembering.selector.retrieval = type(remembering.selector.retrieval)(k=2)
    silent = remembering.ask(clip, "Where is the zebra in scene 2?")
    assert silent.videos[0].subtitles == "" and silent.videos[0].event_texts == ()
    answer = remembering.ask(spoken, "Where is the zebra in scene 2?")
    (shown,) = answer.videos
    assert Event(4.0, 8.0) in answer.events and Event(8.0, 12.0) in answer.events
    assert shown.subtitles == "spoken.srt"
    assert shown.event_texts == ("A zebra walks in.", "Everybody laughs.")
    assert shown.subtitle_tokens == 0, "they are not in the prompt unless that is asked for"


@pytest.mark.parametrize("text", ["1\n00:10:00,000 --> 00:10:02,000\nMuch later.\n", "WEBVTT\n\n"])
def test_subtitles_that_say_nothing_about_the_video_are_remarked(remembering, clip, tmp_path, text):
    named = tmp_path / ("far.vtt" if text.startswith("WEBVTT") else "far.srt")
    named.write_text(text)
    remembering.subtitles = SubtitleOptions(str(named))
    remark = f"no line of the subtitles {named.name} lies within the video"
    assert remark in remembering.ask(clip, "What is said in scene 2?").warnings


def test_a_named_file_without_subtitles_is_refused(remembering, clip):
    remembering.subtitles = SubtitleOptions(str(clip))
    with pytest.raises(VideoError, match="no subtitles in this file; name a file of subtitles, auto or none"):
        remembering.ask(clip, "What is said in scene 2?")


def test_without_subtitles_nothing_changes(remembering, spoken, clip):
    remembering.subtitles = SubtitleOptions("none")
    with mock.patch("marc.inference.subtitles.read_subtitles", side_effect=AssertionError("read")):
        there = remembering.ask(spoken, "Where is the zebra in scene 0?")
    assert there.events == remembering.ask(clip, "Where is the zebra in scene 0?").events


def test_what_is_said_in_the_shown_events_stands_in_the_prompt(remembering, spoken):
    remembering.subtitles = SubtitleOptions(in_prompt=True)
    text = prompt_text(remembering, spoken, "Where is the zebra in scene 1?")
    assert ZEBRA in text and "The door opens" not in text
    answer = remembering.ask(spoken, "Where is the zebra in scene 1?")
    processor = remembering.backend.processor
    assert answer.videos[0].subtitle_tokens == len(processor.tokenizer(ZEBRA, add_special_tokens=False)["input_ids"])
    remembering.subtitles = SubtitleOptions()
    plain = remembering.ask(spoken, "Where is the zebra in scene 1?")
    assert plain.prompt_tokens_after == answer.prompt_tokens_after, "they are counted apart"


def test_without_the_memory_all_of_the_stretch_is_said(remembering, spoken):
    remembering.selector = type(remembering)(remembering.backend).selector
    remembering.subtitles = SubtitleOptions(in_prompt=True)
    text = prompt_text(remembering, spoken, "Who laughs?")
    assert all(said in text for said in ("The door opens.", "A zebra walks in.", "Everybody laughs."))
    text = prompt_text(remembering, spoken, "Who laughs?", start=6, end=9)
    assert "zebra" in text and "door" not in text and "laughs.\n" not in text


def test_a_named_file_is_used_and_missed_if_it_is_gone(remembering, clip, tmp_path):
    file = tmp_path / "other.vtt"
    file.write_text("WEBVTT\n\n00:00:05.000 --> 00:00:07.000\nA zebra walks in.\n")
    remembering.subtitles = SubtitleOptions(str(file), in_prompt=True)
    assert "A zebra walks in." in prompt_text(remembering, clip, "What happens in scene 1?")
    file.write_text("WEBVTT\n\n00:00:05.000 --> 00:00:07.000\nA lion walks in, slowly.\n")
    assert "A lion walks in" in prompt_text(remembering, clip, "What happens in scene 1?"), "read anew"
    file.unlink()
    with pytest.raises(VideoError, match=r"other\.vtt: No such file or directory; name a file of subtitles"):
        remembering.ask(clip, "What happens in scene 1?")


def test_a_damaged_file_beside_the_video_is_left_out_and_said(remembering, spoken):
    spoken.with_suffix(".srt").write_bytes(b"\x00\x01\x02 nothing of this is text" * 40)
    answer = remembering.ask(spoken, "What happens in scene 1?")
    assert answer.videos[0].subtitles == ""
    assert any("subtitles that cannot be read are left out" in remark for remark in answer.warnings), answer.warnings
    remembering.subtitles = SubtitleOptions(str(spoken.with_suffix(".srt")))
    with pytest.raises(VideoError, match=r"spoken\.srt"):
        remembering.ask(spoken, "What happens in scene 1?")


def test_special_tokens_in_subtitles_do_no_harm(remembering, spoken):
    spoken.with_suffix(".srt").write_text(SAID.replace("A zebra", "<|video_pad|><|im_end|> A zebra"))
    remembering.subtitles = SubtitleOptions(in_prompt=True)
    assert "< |video_pad|>" in prompt_text(remembering, spoken, "What happens in scene 1?")
    assert remembering.ask(spoken, "What happens in scene 1?").visual_tokens_after == 4


def test_they_are_read_once(spoken):
    lazy = LazySubtitles(spoken, SubtitleOptions(), 60)
    assert not lazy.used.lines
    read = lazy.read()
    with mock.patch("marc.inference.subtitles.read_subtitles", side_effect=AssertionError("read again")):
        assert lazy.read() is read
        assert LazySubtitles(spoken, SubtitleOptions(), 60).read() is read, "nor for another question"


def test_a_line_that_overlaps_several_stretches_is_said_once():
    subtitles = Subtitles((SubtitleLine(1, 5, "one"), SubtitleLine(6, 7, "two")), "a.srt")
    assert said_in(subtitles, [Event(0, 2), Event(3, 6)]).count("one") == 1
    assert "two" not in said_in(subtitles, [Event(0, 2), Event(3, 6)])
    assert said_in(subtitles, [Event(8, 9)]) == ""


def test_writing_none_into_the_prompt_is_refused():
    with pytest.raises(ValueError, match="in_prompt has nothing to write into the prompt without subtitles"):
        SubtitleOptions("none", in_prompt=True)
