"""Which questions are answered together, and that none waits for long."""

import gc
import threading
import time
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest

from marc.compression import CompressionConfig
from marc.inference.query import Query
from marc.serving.desk import LONGEST_GATHERING, Desk, Work
from marc.serving.options import ServeOptions
from marc.video.options import SubtitleOptions

USUAL, EVERY_TOKEN = CompressionConfig(layout="details", tokens_per_event=8), CompressionConfig(target_frames=None)


class Assistant:
    """Notes which questions come together."""

    def __init__(self):
        self.batches = []
        self.selector, self.generation, self.subtitles = None, "usual", SubtitleOptions()
        self.backend = SimpleNamespace(compression=USUAL)

    def ask_batch(self, queries, listeners):
        self.batches.append([query.question for query in queries])
        return [query.question.upper() for query in queries]


@pytest.fixture
def desk_with():
    desks = []

    def make(**options):
        desks.append(Desk(Assistant(), ServeOptions(**options)))
        return desks[-1]

    yield make
    for desk in desks:
        desk.close()


def work(desk, question, **changes):
    asked = Work(Query((), question), desk.usual, **changes)
    desk.submit(asked)
    return asked


def test_questions_that_follow_one_another_are_answered_together(desk_with):
    desk = desk_with(gather_ms=1000)
    asked = []
    for question in "abc":
        asked.append(work(desk, question))
        time.sleep(0.05)
    assert [each.answer.result(10) for each in asked] == ["A", "B", "C"]
    assert desk.assistant.batches == [["a", "b", "c"]]


def test_those_that_count_are_answered_together_and_the_others_together(desk_with):
    """One generation has one budget, and whoever counts has twice as many tokens where these follow from events."""
    desk = desk_with(gather_ms=1000)
    questions = ("What?", "How many cars?", "Who?", "How many dogs?")
    asked = [work(desk, question) for question in questions]
    assert [each.answer.result(10) for each in asked] == [question.upper() for question in questions]
    assert desk.assistant.batches == [["What?", "Who?"], ["How many cars?", "How many dogs?"]]


def test_when_as_many_have_come_as_were_in_flight_nobody_waits(desk_with):
    desk = desk_with(gather_ms=60_000)
    desk._in_flight = 3
    for _ in range(2):
        asked = [work(desk, question) for question in "abc"]
        assert [each.answer.result(30) for each in asked] == ["A", "B", "C"]
    assert desk.assistant.batches == [["a", "b", "c"]] * 2


def test_a_full_generation_does_not_wait(desk_with):
    desk = desk_with(gather_ms=60_000, max_batch=2)
    assert [each.answer.result(10) for each in (work(desk, "a"), work(desk, "b"))] == ["A", "B"]


def test_nobody_waits_for_ever_for_others_that_keep_coming(desk_with):
    desk, moment = desk_with(gather_ms=300, max_batch=10_000, max_waiting=10_000), 0.3
    begun, first, is_over = time.monotonic(), work(desk, "first"), threading.Event()

    def keep_coming():
        while not is_over.wait(moment / 30):
            work(desk, "another")

    thread = threading.Thread(target=keep_coming)
    thread.start()
    try:
        assert first.answer.result(30) == "FIRST"
        assert time.monotonic() - begun >= LONGEST_GATHERING * moment
    finally:
        is_over.set()
        thread.join()


def test_what_is_being_answered_does_not_change_what_holds_for_others(desk_with):
    desk, is_seen, seen = desk_with(), threading.Event(), []

    def answer(queries, listeners):
        seen.append(desk.assistant.backend.compression)
        assert is_seen.wait(10)
        return ["an answer"]

    desk.assistant.ask_batch = answer
    asked = Work(Query((), "a"), replace(desk.usual, compression=EVERY_TOKEN))
    desk.submit(asked)
    while not seen:
        time.sleep(0.01)
    other = work(desk, "b")
    is_seen.set()
    assert asked.answer.result(10) == other.answer.result(10) == "an answer"
    assert other.setting.compression == USUAL and seen == [EVERY_TOKEN, USUAL]


def test_a_desk_that_closes_while_it_gathers_refuses_what_waits(desk_with):
    desk = desk_with(gather_ms=60_000)
    asked = work(desk, "a")
    desk.close()
    assert asked.answer.cancelled()


def test_an_error_keeps_nothing_of_what_was_read(desk_with):
    """Frames have a file descriptor each, and what only a collection of cycles frees may stay for long."""
    desk, kept = desk_with(), []

    class Picture:
        pass

    def read():
        picture = Picture()
        kept.append(weakref.ref(picture))
        raise ValueError("cut off")

    def fail(queries, listeners):
        try:
            read()
        except ValueError as error:
            raise ValueError("cannot be read") from error

    desk.assistant.ask_batch = fail
    gc.disable()
    try:
        asked = work(desk, "a")
        assert "cannot be read" in str(asked.answer.exception(10))
        assert kept[0]() is None
    finally:
        gc.enable()
