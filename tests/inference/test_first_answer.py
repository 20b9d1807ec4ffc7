"""The first question about a new video: from its key frames at once, or from all of it."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from marc import VideoAssistant
from marc.memory.options import FirstAnswerOptions, MemoryOptions, RetrievalOptions
from marc.types import Answer, GenerationOptions
from marc.video import key_frame_seconds, write_video

AT_ONCE = FirstAnswerOptions(wait=False, coarse_above=5.0)


@pytest.fixture(scope="module")
def assistant() -> VideoAssistant:
    """The embedded model and encoder; events of at most four seconds."""
    return VideoAssistant.from_pretrained(
        memory=MemoryOptions(segmenter="uniform", max_event_seconds=4.0),
        retrieval=RetrievalOptions(k=1),
        generation=GenerationOptions(max_new_tokens=4),
        device="cpu",
    )


@pytest.fixture
def first(assistant, tmp_path, monkeypatch):
    """Has the assistant answer with such options as if it were new, and keep memories in a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def begin(options: FirstAnswerOptions) -> VideoAssistant:
        assistant.forget()
        assistant.selector = replace(
            assistant.selector,
            first=options,
            retrieval=replace(assistant.selector.retrieval, folder=str(tmp_path / "memories")),
        )
        return assistant

    return begin


@pytest.fixture
def video(tmp_path) -> Path:
    """Twelve seconds in four colours."""
    colours = np.random.default_rng(0).integers(0, 256, (4, 1, 56, 56, 3), dtype=np.uint8)
    path = tmp_path / "colours.mp4"
    write_video(path, np.repeat(colours, 30, axis=1).reshape(-1, 56, 56, 3), fps=10)
    return path


def memories(folder: Path) -> list[Path]:
    return sorted((folder / "memories").glob("*.marc"))


def kind(answer: Answer) -> str | None:
    return answer.videos[0].memory


def test_the_first_answer_is_from_key_frames_and_the_next_from_all(first, video, tmp_path):
    assistant = first(AT_ONCE)
    coarse = assistant.ask(video, "What is shown?")
    assert kind(coarse) == "coarse" and not memories(tmp_path)
    assert any("memory: coarse" in warning for warning in coarse.warnings)
    assert set(coarse.videos[0].frame_seconds) <= set(key_frame_seconds(video).tolist())
    full = assistant.ask(video, "What is shown?")
    assert kind(full) == "full" and len(memories(tmp_path)) == 1
    assert not any("coarse" in warning for warning in full.warnings)
    waited = first(FirstAnswerOptions()).ask(video, "What is shown?")
    assert (full.events, full.scores, full.output) == (waited.events, waited.scores, waited.output)


@pytest.mark.parametrize("options", [FirstAnswerOptions(), replace(AT_ONCE, coarse_above=12.1)])
def test_short_videos_and_patient_users_get_it_all(first, video, options):
    assert kind(first(options).ask(video, "What is shown?")) == "full"


def test_what_is_remembered_is_asked_whole(first, video):
    first(AT_ONCE).remember(video)
    assert kind(first(AT_ONCE).ask(video, "What is shown?")) == "full"


def test_what_is_being_made_is_waited_for(first, video, monkeypatch):
    monkeypatch.setattr("marc.memory.making.is_being_made", lambda key: True)
    assert kind(first(AT_ONCE).ask(video, "What is shown?")) == "full"


def test_how_many_events_a_new_video_has_is_asked_of_its_key_frames(first, video, monkeypatch):
    """Where the budget follows from the events; the frames are those of any question about the whole."""
    assistant, question = first(AT_ONCE), "How many scenes are there?"
    fixed = assistant.ask(video, question)
    monkeypatch.setattr(assistant.backend, "compression", replace(assistant.backend.compression, tokens_per_event=2))
    grown = assistant.ask(video, question)
    assert [kind(answer) for answer in (fixed, grown)] == [None, "coarse"] and grown.videos[0].scope == "all"
    assert any("how many events there are is what key frames say" in warning for warning in grown.warnings)
    assert fixed.videos[0].frame_seconds == grown.videos[0].frame_seconds
    assert kind(assistant.ask(video, question)) == "full"


def test_a_coarse_answer_is_the_same_on_every_machine(first, video, tmp_path, monkeypatch):
    answers = []
    for machine in ("one", "another"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        answers.append(first(AT_ONCE).ask(video, "What is shown?"))
    assert [kind(answer) for answer in answers] == ["coarse", "coarse"]
    assert len({(answer.output, answer.events, answer.videos) for answer in answers}) == 1


def test_questions_that_are_asked_together_are_answered_from_the_same(first, video):
    assistant = first(AT_ONCE)
    together = assistant.ask_many(video, ["What is shown?", "Is it red?"])
    assert [kind(answer) for answer in together] == ["coarse", "coarse"]
    assert kind(assistant.ask(video, "What is shown?")) == "full"


def test_whoever_asks_while_the_first_is_answered_waits_for_all(first, video):
    first(AT_ONCE).ask(video, "What is shown?")
    assert kind(first(AT_ONCE).ask(video, "What is shown?")) == "full"


def test_what_could_not_be_made_elsewhere_is_made_here(first, video, monkeypatch):
    monkeypatch.setattr("marc.memory.making.has_failed", lambda key: True)
    assert kind(first(AT_ONCE).ask(video, "What is shown?")) == "full"


def test_where_key_frames_do_not_tell_the_video_is_cut(first, video, monkeypatch):
    monkeypatch.setattr("marc.memory.coarse.FARTHEST", 0.01)
    assert kind(first(AT_ONCE).ask(video, "What is shown?")) == "full"


def test_a_stretch_is_read_inside_it(first, video):
    answer = first(AT_ONCE).ask(video, "What is shown?", start=4.5, end=9.0)
    assert kind(answer) == "coarse"
    assert all(4.5 - 0.1 <= second < 9.0 for second in answer.videos[0].frame_seconds)


def test_meanwhile_another_process_makes_the_memory(first, video, tmp_path):
    assistant = first(replace(AT_ONCE, background=True))
    assert kind(assistant.ask(video, "What is shown?")) == "coarse"
    for _ in range(600):
        if memories(tmp_path):
            break
        time.sleep(0.1)
    made = memories(tmp_path)
    assert kind(assistant.ask(video, "What is shown?")) == "full" and memories(tmp_path) == made


def test_nothing_is_left_for_the_background_where_one_waits():
    with pytest.raises(ValueError, match="background is for answers that do not wait"):
        FirstAnswerOptions(background=True)
