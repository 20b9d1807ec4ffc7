"""The JSON of answers: derived from the records, documented by docs/schema.json, and held to it."""

import json
import os
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_schema import schema

from marc.records import AnswerRecord, EventRecord, RecallRecord, as_json
from marc.types import Answer, Event, ShownVideo

FILE = Path(__file__).resolve().parents[1] / "docs" / "schema.json"
NUMBERS = st.integers(0, 10**6)
TIMES = st.floats(0, 1e6, allow_nan=False)


def test_the_document_is_up_to_date():
    if os.environ.get("MARC_UPDATE_GOLDEN"):
        FILE.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
    assert json.loads(FILE.read_text(encoding="utf-8")) == schema(), "MARC_UPDATE_GOLDEN=1 writes it anew"


def test_everything_in_it_is_described():
    for name, definition in schema()["$defs"].items():
        assert definition["description"], name
        assert all(values["description"] for values in definition["properties"].values()), name
        assert set(definition["required"]) >= set(definition["properties"]) - {
            "text",
            "frames",
            "picture",
            "warnings",
            "probability",
            "has_thought",
            "generated_tokens",
            "memory",
            "scope",
            "page",
            "next_page",
        }, name


@st.composite
def shown_videos(draw) -> ShownVideo:
    count = draw(st.integers(0, 3))
    events = tuple(Event(start, start + 1) for start in draw(st.lists(TIMES, min_size=count, max_size=count)))
    return ShownVideo(
        source=draw(st.text()),
        kind=draw(st.sampled_from(["video", "image"])),
        start=draw(TIMES),
        end=draw(TIMES),
        frame_seconds=tuple(draw(st.lists(TIMES, max_size=4))),
        grid_events=tuple(draw(st.lists(NUMBERS, max_size=2))),
        grid_groups=tuple(draw(st.lists(NUMBERS, max_size=2))),
        events=events,
        scores=tuple(draw(st.lists(st.floats(-1, 1), min_size=count, max_size=count))),
        visual_tokens_before=draw(NUMBERS),
        visual_tokens_after=draw(NUMBERS),
        visual_tokens_budget=draw(st.none() | NUMBERS),
        prompt_tokens_before=draw(NUMBERS),
        prompt_tokens_after=draw(NUMBERS),
        event_texts=draw(st.sampled_from([(), ("said",) * count])),
    )


@given(st.lists(shown_videos(), max_size=3), st.text(), st.none() | NUMBERS, st.none() | st.booleans())
def test_every_answer_keeps_to_the_schema(videos, text, budget, thought):
    answer = Answer(text, text, question=text, videos=tuple(videos), visual_tokens_budget=budget, warnings=(text,))
    answer = replace(answer, has_thought=thought, probability=None if thought is None else 0.5)
    value = json.loads(json.dumps(as_json(AnswerRecord.of(answer))))
    jsonschema.validate(value, schema())
    assert len(value["events"]) == sum(len(video.events) for video in videos)
    assert [event["source"] for event in value["events"]] == [v.source for v in videos for _ in v.events]
    assert "scores" not in value, "they stand beside their events"


def test_what_is_recalled_keeps_to_the_schema():
    record = RecallRecord.of("Where?", "tiny", [EventRecord("a.mp4", 0.0, 2.5, 0.25, "said")])
    value = json.loads(json.dumps(as_json(record)))
    jsonschema.validate(value, schema())
    said = {"text": "said", "frames": 0, "picture": ""}
    assert value["events"] == [{"source": "a.mp4", "start": 0.0, "end": 2.5, "score": 0.25, **said}]


@pytest.mark.parametrize("wrong", [{}, {"schema": "marc.answer.v1"}, {"schema": "marc.answer.v2"}])
def test_what_is_no_answer_does_not(wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema())
