"""From recalled events to what is shown of their videos."""

from dataclasses import replace

import pytest

from marc import VideoAssistant
from marc.compression import CompressionConfig
from marc.inference.recalling import clips_of, recalled_clips
from marc.memory.library import RecalledEvent
from marc.memory.options import RetrievalOptions
from marc.memory.store import content_key
from marc.types import Event


class Shelf:
    """A library that recalls what it was given, best first."""

    address = "shelf"

    def __init__(self, *found):
        self.found = found

    def recall(self, embedder, question, k):
        return list(self.found[:k])


@pytest.fixture
def videos(clip, tmp_path):
    paths = [tmp_path / f"{name}.mp4" for name in "abc"]
    for path in paths:
        path.write_bytes(clip.read_bytes())
    return [str(path) for path in paths]


def event(source, start, score, content=None):
    return RecalledEvent(source, content or content_key(source), 0, Event(start, start + 2), score, "", score)


def test_events_of_a_video_come_together_in_time_order_with_their_part_of_the_budget():
    times = (("a", 7), ("b", 1), ("a", 3), ("a", 5))
    found = [RecalledEvent(source, "", 0, Event(start, start + 1), 0.5) for source, start in times]
    first, second = clips_of(found)
    assert (first.source, second.source) == ("a", "b")
    assert first.found.events == (Event(3, 4), Event(5, 6), Event(7, 8)) and first.found.kept == (0, 1, 2)
    assert (first.share, second.share) == (0.75, 0.25)


def test_files_that_are_gone_or_have_changed_are_left_out_and_said(videos):
    a, b, c = videos
    unreadable = [event(a, 0, 0.9, "of another content"), event("/gone.mp4", 0, 0.8, "x")]
    found = [*unreadable, event(b, 4, 0.7), event(c, 8, 0.6)]
    clips, remarks = recalled_clips(Shelf(*found), None, "What?", RetrievalOptions(k=1), None)
    assert [clip.source for clip in clips] == [b]
    assert remarks == (
        f"{a} is left out: the file has changed since it was remembered",
        "/gone.mp4 is left out: the file is gone",
    )
    with pytest.raises(ValueError, match=r"shelf: no video that fits the question can be read; .*gone"):
        recalled_clips(Shelf(*unreadable), None, "What?", RetrievalOptions(k=1), None)


@pytest.mark.parametrize(
    ("k", "most", "shown"), [(3, None, 3), (3, 2, 2), (5, None, 4), ("auto", None, 2), ("auto", 1, 1)]
)
def test_so_many_events_are_shown_as_are_wanted_and_fit(videos, k, most, shown):
    scores = (0.9, 0.85, 0.3, 0.25)
    found = [event(videos[number % 3], 2 * number, score) for number, score in enumerate(scores)]
    clips, _ = recalled_clips(Shelf(*found), None, "What?", RetrievalOptions(k=k), most)
    assert sum(len(clip.found.events) for clip in clips) == shown


def test_an_answer_from_the_library_rests_on_events_of_several_videos(remembering, videos):
    """They share one video's budget, and are cited with video and time."""
    a, b, _ = videos
    shelf = Shelf(event(a, 1, 0.9), event(b, 9, 0.8), event(a, 5, 0.7))
    remembering.selector.retrieval = RetrievalOptions(k=3)
    answer = remembering.ask_library(shelf, "What happens in scene 1?")
    assert [(shown.source, shown.events) for shown in answer.videos] == [
        (a, (Event(1, 3), Event(5, 7))),
        (b, (Event(9, 11),)),
    ]
    assert answer.visual_tokens_budget == answer.visual_tokens_after == 4
    assert [shown.visual_tokens_after for shown in answer.videos] == [3, 1]
    assert not answer.warnings


@pytest.mark.parametrize("layout", ["events", "details"])
@pytest.mark.parametrize(
    ("budget", "k", "tokens", "prompt"),
    [
        ({"visual_tokens": 20}, 3, 20, 26),
        ({"visual_tokens": 8}, 5, 8, 14),
        ({"visual_tokens": 2}, 5, 2, 6),
        ({"visual_tokens": 20, "prompt_tokens": 20}, 3, 14, 20),
        ({"visual_tokens": 4, "prompt_tokens": 4}, 3, 2, 4),
        ({}, 6, 4, 10),
        ({"tokens_per_event": 9, "visual_tokens": 11}, 4, 11, 17),
    ],
)
def test_films_share_a_budget_to_the_token(remembering, videos, layout, budget, k, tokens, prompt):
    """However many events and films it is shared over; `tokens` is all of it but for marks that a prompt pays."""
    if remembering.backend.processor.event_overhead(9):
        pytest.skip("its prompts have times, too")
    answer = asked_of(remembering, videos, k, CompressionConfig(layout, **budget))
    assert sum(shown.visual_tokens_after for shown in answer.videos) == tokens
    assert answer.prompt_tokens_after == prompt


@pytest.mark.parametrize("k", [2, 3, 6])
@pytest.mark.parametrize("prompt", [70, 120, 200])
def test_films_share_a_prompt_with_its_times(remembering, videos, prompt, k):
    budget = CompressionConfig("events", visual_tokens=prompt, prompt_tokens=prompt)
    answer = asked_of(remembering, videos, k, budget)
    overhead = remembering.backend.processor.event_overhead(12)
    least = 2 + max(1 + overhead, 2 * overhead)
    assert answer.prompt_tokens_after <= prompt
    assert sum(len(shown.events) for shown in answer.videos) == min(k, prompt // least)


def asked_of(assistant, videos, k, compression):
    """What an assistant answers of six events of three films, of which it is shown some."""
    found = [event(videos[number % 3], 2 * (number // 3), 0.9 - number / 10) for number in range(6)]
    assistant.selector.retrieval = RetrievalOptions(k=k)
    assistant.backend.compression = replace(compression, duplicates=None)
    return assistant.ask_library(Shelf(*found), "What happens in scene 1?")


def test_without_a_memory_nothing_is_recalled(checkpoint):
    assistant = VideoAssistant.from_pretrained(checkpoint, memory=None, device="cpu")
    with pytest.raises(ValueError, match="no memory: nothing can be recalled"):
        assistant.ask_library(Shelf(), "What?")


def test_an_empty_question_recalls_nothing(remembering):
    with pytest.raises(ValueError, match="the question is empty"):
        remembering.ask_library(Shelf(), " ")
