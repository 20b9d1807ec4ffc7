"""Which frames are read: the numbers are those that have always been read, so that results stay comparable."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from marc.compression import CompressionConfig
from marc.inference.query import budget_for
from marc.inference.selectors import FrameRequest, RandomSelector, RetrievingSelector, Selection, UniformSelector
from marc.inference.stages import StageClock
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.types import Clip, Event, Retrieval, VideoInfo
from marc.video.options import FrameOptions

EVENTS = (Event(0.0, 4.0), Event(4.0, 9.5), Event(9.5, 12.0), Event(12.0, 30.0))
RETRIEVAL = Retrieval(EVENTS, (0.1, 0.7, 0.2, 0.5), (1, 3), (0.9, 0.2, 0.3))
IN_BOTH = (4.6875, 6.0625, 7.4375, 8.8125, *(12.5625 + 1.125 * place for place in range(16)))
IN_RETRIEVED = (*(4 + 11 / 12 * (place + 0.5) for place in range(6)), *(12.5 + place for place in range(18)))


def request(name: str = "a.mp4", duration: float = 30.0, *, compression=None, **frames) -> FrameRequest:
    info = VideoInfo(name, 320, 240, duration, fps=25.0, frame_count=int(25 * duration), codec="h264")
    config = CompressionConfig(**(compression or {}))
    return FrameRequest(info, "What?", FrameOptions(**frames), config, 99, 0, StageClock())


class Remembering(RetrievingSelector):
    """Finds the same in every video."""

    def __init__(self) -> None:
        super().__init__(lambda: pytest.fail("no encoder is needed"), MemoryOptions(), RetrievalOptions())

    def retrieve(self, request: FrameRequest) -> Retrieval:
        return RETRIEVAL


@pytest.mark.parametrize(
    ("duration", "count", "first", "last"),
    [(1.0, 4, [0.0, 0.32], 0.96), (30.0, 60, [0.0, 0.52], 29.96), (100.0, 64, [0.0, 1.6], 99.96)],
)
def test_a_video_is_sampled_evenly(duration, count, first, last):
    selection = UniformSelector().select(request(duration=duration))
    assert len(selection.seconds) == count
    assert selection.seconds[:2].tolist() == pytest.approx(first)
    assert selection.seconds[-1] == pytest.approx(last)
    assert selection == Selection(selection.seconds)


@pytest.mark.parametrize(
    ("scope", "question", "evenly"),
    [
        ("auto", "How many scenes are there?", True),
        ("auto", "What is on the table?", False),
        ("moments", "How many scenes are there?", False),
        ("all", "What is on the table?", True),
    ],
)
def test_a_question_about_all_of_a_video_is_answered_from_evenly_spread_frames(scope, question, evenly):
    selector, asked = Remembering(), replace(request(max_frames=24), question=question)
    selector.retrieval = RetrievalOptions(scope=scope)
    selection = selector.select(asked)
    assert (selection.retrieval is None) == evenly
    if evenly:
        expected = UniformSelector().select(asked)
        assert selection.seconds.tolist() == expected.seconds.tolist()
        assert selection.grid_events is None and selection.shares is None and selection.memory is None
    assert selection.scope == ("all" if evenly else "moments")


class Stored(NamedTuple):
    """Of a memory what is looked up: every event is unlike the others."""

    events: tuple[Event, ...] = EVENTS
    embeddings: np.ndarray = np.eye(len(EVENTS), dtype=np.float32)


@pytest.mark.parametrize("layout", ["events", "details"])
@pytest.mark.parametrize("clip", [None, Clip("a.mp4", start=5.0, end=11.0)])
def test_where_the_budget_follows_from_the_events_evenly_spread_frames_are_told_theirs(layout, clip, monkeypatch):
    monkeypatch.setattr(Remembering, "remember", lambda self, video: Stored())
    asked = request(compression={"layout": layout, "tokens_per_event": 3}, max_frames=24)
    asked = replace(asked, question="How many scenes are there?", clip=clip)
    selection = Remembering().select(asked)
    assert selection.seconds.tolist() == UniformSelector().select(asked).seconds.tolist()
    middles = selection.seconds.reshape(-1, 2).mean(axis=1)
    starts = [event.start for event in EVENTS if clip is None or (event.end > 5.0 and event.start < 11.0)]
    assert selection.grid_events == tuple(sum(start <= middle for start in starts[1:]) for middle in middles)
    assert (selection.scope, selection.memory, selection.retrieval, selection.shares) == ("all", "full", None, None)
    fixed = replace(asked, compression=CompressionConfig(layout=layout, visual_tokens=9))
    assert Remembering().select(fixed).grid_events is None, "and not looked up otherwise"


@pytest.mark.parametrize(
    ("compression", "shares"),
    [
        ({}, (1, 49, 1, 48)),
        ({"visual_tokens": 9}, (1, 4, 1, 3)),
        ({"target_frames": 2}, (1, 98, 1, 98)),
        ({"layout": "details", "visual_tokens": 9}, (1, 4, 1, 3)),
        ({"layout": "details", "tokens_per_event": 9}, (1, 3, 1, 3)),
    ],
)
def test_in_layouts_that_share_every_event_is_read_and_the_retrieved_ones_share_the_budget(compression, shares):
    selection = Remembering().select(request(compression=compression, max_frames=24))
    assert selection.seconds.tolist() == pytest.approx([1.75, 2.25, *IN_BOTH[:4], 10.5, 11.0, *IN_BOTH[4:]])
    assert selection.grid_events == (0, 1, 1, 2, *[3] * 8)
    assert selection.shares == shares
    assert selection.retrieval is RETRIEVAL


@pytest.mark.parametrize(("prompt", "events"), [(200, 4), (74, 4), (73, 3), (56, 3), (55, 2)])
def test_as_many_events_are_read_as_the_prompt_has_room_for(prompt, events):
    asked = replace(request(compression={"prompt_tokens": prompt}), overhead=9)
    selection = Remembering().select(asked)
    assert len(set(selection.grid_events)) == len(selection.shares) == events
    with pytest.raises(ValueError, match="a budget of 11 tokens in the prompt: a video costs at least 12; raise"):
        Remembering().select(replace(request(compression={"prompt_tokens": 11}), overhead=9))


@pytest.mark.parametrize(
    ("each", "events", "shares"), [(1, 4, (1, 1, 1, 1)), (3, 4, (1, 3, 1, 3)), (99, 4, (1, 99, 1, 99))]
)
def test_where_events_have_tokens_of_their_own_the_retrieved_ones_do(each, events, shares):
    selection = Remembering().select(request(compression={"tokens_per_event": each}))
    assert (len(set(selection.grid_events)), selection.shares) == (events, shares)


def test_tokens_of_an_event_are_its_own_however_many_videos_are_asked_about():
    retrieval = Retrieval((Event(0.0, 4.0),), (0.5,), (0,), ())
    asked = replace(request(compression={"tokens_per_event": 4}), clip=Clip("a.mp4", share=1 / 3))
    assert Selection.of_events(asked, retrieval, asked.most_events).shares == (4,)
    limited = replace(asked, compression=CompressionConfig(tokens_per_event=4, visual_tokens=6))
    assert Selection.of_events(limited, retrieval, limited.most_events).shares == (2,)


@pytest.mark.parametrize(("layout", "together"), [("events", 48), ("details", 24)])
def test_films_of_a_library_cost_together_what_their_events_cost_in_one(layout, together):
    """Four events in all, of each film as many as its share: 4 * 12, or 12 * sqrt(4)."""
    asked = request(compression={"layout": layout, "tokens_per_event": 12}, max_frames=24)
    spent = 0
    for events in (1, 3):
        clip = Clip("a.mp4", share=events / 4)
        found = Retrieval(EVENTS[:events], (0.5,) * events, tuple(range(events)), (0.1,) * (events - 1))
        spent += sum(Selection.of_events(replace(asked, clip=clip), found, 12).shares)
    assert spent == together


@pytest.mark.parametrize(
    ("question", "spent"),
    [("What is on the table?", 10), ("Which is shown first?", 20), ("How many are on the table?", 20)],
)
def test_of_single_cells_half_are_enough_for_a_moment_that_was_found(question, spent):
    """Two retrieved events with ``ceil(14 * sqrt(2)) = 20``; who counts has twice as many, of a moment as of all."""
    own = budget_for(question, CompressionConfig(layout="details", tokens_per_event=14))
    asked = replace(request(max_frames=24), question=question, compression=own)
    assert sum(Selection.of_events(asked, RETRIEVAL, asked.most_events).shares) == spent + len(EVENTS) - 2
    nothing_left_out = Retrieval(EVENTS[:2], (0.7, 0.5), (0, 1), (0.9,))
    whole = 2 * 20 if "many" in question else 20
    assert sum(Selection.of_events(asked, nothing_left_out, asked.most_events).shares) == whole


def test_neighbours_that_look_alike_are_one_event_of_one_token():
    events = tuple(Event(4.0 * index, 4.0 * index + 4) for index in range(6))
    retrieval = Retrieval(events, (0.9, 0.1, 0.1, 0.1, 0.1, 0.1), (0,), (0.99, 0.99, 0.2, 0.96, 0.95))
    asked = request(compression={"tokens_per_event": 5})
    selection = Selection.of_events(asked, retrieval, asked.most_events)
    assert selection.shares == (5, 1, 1), "the retrieved one, those at 4 and 8 s, those from 12 s on"


@pytest.mark.parametrize("compression", [{"layout": "frames"}, {"target_frames": None}])
def test_otherwise_only_the_retrieved_events_are_read(compression):
    selection = Remembering().select(request(compression=compression, max_frames=24))
    assert selection.seconds.tolist() == pytest.approx(IN_RETRIEVED)
    assert selection.grid_events == (0, 0, 0, *[1] * 9)
    assert selection.shares is None


@pytest.mark.parametrize(
    ("name", "remembers", "start"),
    [
        ("a.mp4", False, 23.967496119164892),
        ("a.mp4", True, 27.99697418925774),
        ("folder/holiday.mkv", False, 11.438055002731378),
        ("folder/holiday.mkv", True, 22.03009438529096),
    ],
)
def test_a_random_place_follows_from_the_files_name(name, remembers, start):
    selection = RandomSelector(Remembering() if remembers else None).select(request(name))
    assert selection.seconds.tolist() == [start, start + 0.5]
    assert (selection.grid_events, selection.shares) == ((0,), None)
    assert selection.retrieval is (RETRIEVAL if remembers else None)


def test_a_random_place_stays_inside_a_short_video():
    assert RandomSelector().select(request("short.mp4", 1.0, fps=0.5)).seconds.tolist() == [0.0, 1.0]


def test_retrieving_is_timed_and_loads_the_encoder_when_it_is_needed(embedder, monkeypatch):
    loads = []
    retrieval = RetrievalOptions(k=2, folder="memories")
    selector = RetrievingSelector(lambda: loads.append(1) or embedder, MemoryOptions("uniform"), retrieval, print)
    asked = []

    class Memory:
        events, embeddings = EVENTS[:3], np.eye(3, dtype=np.float32)

    def remember(*arguments, **options):
        asked.append((arguments, options))
        return Memory()

    monkeypatch.setattr("marc.memory.index.remember", remember)
    assert not loads
    question = request()
    question = FrameRequest(question.info, "In scene 2?", *list(vars(question).values())[2:])
    found = selector.retrieve(question)
    assert asked == [(("a.mp4", embedder, MemoryOptions("uniform")), {"folder": "memories", "progress": print})]
    assert loads == [1] and 2 in found.kept and len(found.kept) == 2
    assert set(question.clock.seconds) == {"subtitles", "remember", "retrieve"}


@pytest.mark.parametrize(
    ("compression", "frames"), [({"visual_tokens": 1}, 64), ({"layout": "frames"}, 2), ({"target_frames": None}, 2)]
)
def test_events_that_do_not_fit_are_left_out_the_weakest_first_and_counted(compression, frames):
    selection = Remembering().select(request(compression=compression, max_frames=frames))
    assert selection.retrieval.kept == (1,), "the event of the highest score"
    assert selection.left_out == 1
