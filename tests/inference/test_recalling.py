"""From recalled events to what is shown of their videos."""

import pytest

from marc import VideoAssistant
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


def test_without_a_memory_nothing_is_recalled(checkpoint):
    assistant = VideoAssistant.from_pretrained(checkpoint, memory=None, device="cpu")
    with pytest.raises(ValueError, match="no memory: nothing can be recalled"):
        assistant.ask_library(Shelf(), "What?")


def test_an_empty_question_recalls_nothing(remembering):
    with pytest.raises(ValueError, match="the question is empty"):
        remembering.ask_library(Shelf(), " ")
