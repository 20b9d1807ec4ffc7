"""Streams of the micro-world and their questions: true of what was seen, and of nothing else."""

import numpy as np
import pytest

from marc.world.streams import (
    LONGEST,
    SHORTEST,
    past_question,
    present_question,
    sample_stream,
    scene_ends,
    seen_until,
)


@pytest.fixture(scope="module")
def stream():
    return sample_stream("test", 5, 0, 12)


def test_a_stream_follows_from_its_numbers(stream):
    assert stream == sample_stream("test", 5, 0, 12)
    assert stream != sample_stream("test", 5, 1, 12)
    assert len(stream.events) == 12
    assert all(SHORTEST <= event.grids <= LONGEST for event in stream.events)
    assert all(a.background != b.background for a, b in zip(stream.events, stream.events[1:], strict=False))


def test_what_was_seen_ends_with_the_scene_that_is_shown(stream):
    ends = scene_ends(stream)
    assert ends[-1] == stream.frame_count / 2
    for second in np.arange(0.25, ends[-1], 1.7):
        seen = seen_until(stream, second)
        last = len(seen.events) - 1
        assert seen.events[:last] == stream.events[:last]
        assert ([0.0, *ends][last]) <= second < ends[last]
        assert seen.events[last].background == stream.events[last].background


def test_a_question_about_the_past_has_one_answer(stream):
    rng, ends = np.random.default_rng(0), scene_ends(stream)
    for second in np.arange(30, ends[-1], 3.1):
        question = past_question(stream, second, rng)
        if question is None:
            continue
        assert ends[question.event] <= second - 2
        event, (item,) = stream.events[question.event], stream.events[question.event].objects
        seen = seen_until(stream, second).events
        if question.kind in ("scene of object", "direction of object"):
            assert sum(each.objects[0].name == item.name for each in seen) == 1
        else:
            assert sum(each.background == event.background for each in seen) == 1
            assert event.background in question.text


def test_a_question_about_the_present_is_about_the_scene_that_is_shown(stream):
    rng, ends = np.random.default_rng(0), scene_ends(stream)
    asked = 0
    for second in np.arange(12, ends[-1], 2.3):
        question = present_question(stream, second, rng)
        if question is None:
            continue
        asked += 1
        now = seen_until(stream, second).events[-1]
        (item,) = now.objects
        said = question.answer
        if question.options:
            said = next(each for each in question.options if each.startswith(said)).split(". ")[1]
        assert said in (now.background, item.colour, item.shape, item.direction)
        assert "last" in question.text
    assert asked > 10
