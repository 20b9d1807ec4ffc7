"""A question about a watched source: what is shown of its past, and always of its present."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marc import VideoAssistant
from marc.compression.config import parse_budget
from marc.inference.live import _fitted, is_about_now
from marc.memory.embedder import QuestionEmbedding
from marc.memory.live import LiveMemory, LiveOptions, Source, StoredWatch
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.types import GenerationOptions

SCENES = 8


class NumberedEmbedder:
    """A frame points to where its brightness says, a question to the scene whose number it contains."""

    name, device, image_size, dimension = "numbered", "cpu", 16, SCENES

    @property
    def identity(self):
        return {"fingerprint": "n" * 64, "precision": "fp32"}

    def embed_frames(self, frames):
        return np.eye(SCENES, dtype=np.float32)[[round(float(frame.mean()) / 25) for frame in frames]]

    def embed_question(self, question):
        number = int(next(filter(str.isdigit, question)))
        return QuestionEmbedding(np.eye(SCENES, dtype=np.float32)[number], question, 1, 8)


@pytest.fixture(scope="module")
def assistant() -> VideoAssistant:
    loaded = VideoAssistant.from_pretrained(
        retrieval=RetrievalOptions(k=2), generation=GenerationOptions(max_new_tokens=4), device="cpu"
    )
    loaded.selector.load_embedder = NumberedEmbedder
    return loaded


def watched(folder: Path, scenes: int = 6, options: LiveOptions | None = None, name: str = "camera") -> LiveMemory:
    """Scenes of four seconds, each of one brightness, cut at the right places."""
    cutting = MemoryOptions("uniform", 1.0, 20.0, 1.0)
    memory = LiveMemory(name, NumberedEmbedder(), options, cutting, folder=folder, source=Source(rate=4.0))
    for number in range(scenes):
        for frame in range(16):
            memory.push(np.full((56, 56, 3), 25 * number, np.uint8), 4 * number + frame / 4)
        if number < scenes - 1:
            memory._cut(4.0 * (number + 1))
    return memory


@pytest.fixture
def memory(tmp_path):
    memory = watched(tmp_path)
    yield memory
    memory.close()


def shown(answer) -> list[tuple[float, float]]:
    return [(round(event.start, 1), round(event.end, 1)) for event in answer.events]


def test_the_events_that_fit_are_shown_and_what_is_there_now(assistant, memory):
    answer = assistant.ask(memory, "What about 2?")
    assert (8, 12) in shown(answer)
    assert shown(answer)[-1] == (20, 23.5)
    (video,) = answer.videos
    assert video.frame_seconds[-4:] == (22, 22.5, 23, 23.5)
    assert answer.visual_tokens_after <= 4
    assert max(video.frame_seconds) <= memory.until


def test_where_events_have_tokens_of_their_own_the_kept_ones_and_the_present_do(assistant, memory, monkeypatch):
    monkeypatch.setattr(assistant.backend, "compression", parse_budget("auto:3", assistant.backend.compression))
    (video,) = assistant.ask(memory, "What about 2?").videos
    kept, shown_events = len(video.events), len(set(video.grid_events))
    assert video.visual_tokens_budget == shown_events + 2 * kept


def test_neighbours_that_look_alike_are_one_event_where_each_has_tokens(assistant, memory, monkeypatch):
    monkeypatch.setattr(assistant.backend, "compression", parse_budget("auto:3", assistant.backend.compression))
    apart = len(set(assistant.ask(memory, "What about 2?").videos[0].grid_events))
    monkeypatch.setattr("marc.inference.live.unlike_events", lambda similarity, kept: len(kept) + 1)
    assistant.forget()
    (video,) = assistant.ask(memory, "What about 2?").videos
    assert len(set(video.grid_events)) == len(video.events) + 1 < apart
    assert video.visual_tokens_budget == 3 * len(video.events) + 1


def test_an_answer_says_until_when_the_source_was_seen(assistant, memory):
    assert any("seen until 23.5 s" in warning for warning in assistant.ask(memory, "What about 2?").warnings)


def test_the_source_goes_on_between_two_questions(assistant, memory):
    before = assistant.ask(memory, "What about 2?")
    for frame in range(8):
        memory.push(np.full((56, 56, 3), 125, np.uint8), 24 + frame / 4)
    after = assistant.ask(memory, "What about 2?")
    assert before.videos[0].frame_seconds[-1] == 23.5
    assert after.videos[0].frame_seconds[-1] == 25.5


def test_another_process_that_reads_it_is_shown_the_same(assistant, memory, tmp_path):
    memory.flush()
    here = assistant.ask(memory, "What about 3?")
    there = assistant.ask(StoredWatch(tmp_path / "camera"), "What about 3?")
    assert there.videos == here.videos
    assert there.answer == here.answer


def test_a_stretch_shows_nothing_of_what_lies_around(assistant, memory):
    answer = assistant.ask(memory, "What about 5?", start=4, end=12)
    assert all(4 <= second < 12 for second in answer.videos[0].frame_seconds)
    with pytest.raises(ValueError, match="seen until 23"):
        assistant.ask(memory, "What about 5?", start=100)


def test_of_an_event_that_reaches_into_a_stretch_what_lies_inside_is_shown(assistant, memory):
    answer = assistant.ask(memory, "What about 1?", start=6, end=10)
    assert answer.videos[0].frame_seconds
    assert all(6 <= second < 10 for second in answer.videos[0].frame_seconds)


def test_what_a_stretch_cuts_off_does_not_mix_two_moments(assistant, tmp_path):
    """Of an event with frames in pairs 4.5, 4.75 and 7.5, 7.75 s and a stretch that begins between the first two."""
    memory = watched(tmp_path, scenes=8, options=LiveOptions(recent_seconds=2, event_frames=4))
    (event,) = (each for each in memory.snapshot().events if each.span.start == 4)
    (first, second), (third, fourth) = event.seconds[:2], event.seconds[2:]
    answer = assistant.ask(memory, "What about 1?", start=(first + second) / 2, end=8)
    memory.close()
    assert answer.videos[0].frame_seconds == (second, second, third, fourth)


def test_where_nothing_of_a_stretch_is_kept_the_nearest_is_shown_and_that_is_said(assistant, tmp_path):
    memory = watched(tmp_path, scenes=8, options=LiveOptions(recent_seconds=2, event_frames=2))
    answer = assistant.ask(memory, "What about 1?", start=4, end=5)
    memory.close()
    (second,) = set(answer.videos[0].frame_seconds)
    assert 5 <= second < 8
    assert any(f"no frame is kept; one at {second:.1f} s is shown" in warning for warning in answer.warnings)


def test_a_cut_that_is_not_known_yet_hides_nothing_of_the_present(assistant, memory):
    for frame in range(4):
        memory.push(np.full((56, 56, 3), 5, np.uint8), 24 + frame / 4)
    answer = assistant.ask(memory, "What about 2?")
    assert answer.videos[0].frame_seconds[-2:] == (24, 24.5)
    assert shown(answer)[-1] == (24, 24.5)


def test_a_question_about_now_is_answered_from_now(assistant, memory):
    answer = assistant.ask(memory, "What is there in scene 2 now?")
    assert shown(answer) == [(20, 23.5)]
    assert answer.videos[0].frame_seconds == (22, 22.5, 23, 23.5)


@pytest.mark.parametrize(
    ("question", "is_now"),
    [
        ("What is he doing right now?", True),
        ("Which scene comes last?", True),
        ("What colour is the car in the current picture?", True),
        ("When did the last bus leave?", False),
        ("What is known about snow?", False),
    ],
)
def test_questions_about_now_say_so(question, is_now):
    assert is_about_now(question) == is_now


def test_where_there_is_room_the_rest_of_the_time_is_shown_too(memory):
    wide = VideoAssistant.from_pretrained(
        compression={"budget": "events:3"},
        retrieval=RetrievalOptions(k=1),
        generation=GenerationOptions(max_new_tokens=4),
        device="cpu",
    )
    wide.selector.load_embedder = NumberedEmbedder
    answer = wide.ask(memory, "What about 3?")
    (video,) = answer.videos
    assert len(set(video.grid_events)) == 6  # five that are over, and now
    assert video.frame_seconds[0] < 4


def test_what_was_forgotten_is_said(assistant, tmp_path):
    memory = watched(tmp_path, 7, LiveOptions(most_events=3, whole_seconds=0, recent_seconds=4), name="full")
    answer = assistant.ask(memory, "What about 2?")
    assert any("kept as" in warning and "forgotten" in warning for warning in answer.warnings)
    memory.close()


def test_nothing_was_seen_yet(assistant, tmp_path):
    memory = LiveMemory("empty", NumberedEmbedder(), memory=MemoryOptions("uniform"), folder=tmp_path)
    with pytest.raises(ValueError, match="nothing was seen yet"):
        assistant.ask(memory, "What about 2?")
    memory.close()


def test_without_the_memory_it_is_not_asked(memory):
    with pytest.raises(ValueError, match="with the memory"):
        VideoAssistant.from_pretrained(memory=None, device="cpu").ask(memory, "What about 2?")


def test_another_dual_encoder_is_not_mixed(memory):
    with pytest.raises(ValueError, match="another dual encoder"):
        VideoAssistant.from_pretrained(device="cpu").ask(memory, "What about 2?")


def test_frames_of_another_shape_keep_it():
    buffer = io.BytesIO()
    Image.new("RGB", (100, 50), "white").save(buffer, "JPEG")
    wide = _fitted(buffer.getvalue(), (28, 28), (50, 50))
    assert wide[14].min() > 240
    assert wide[:6].max() < 20
    assert _fitted(buffer.getvalue(), (28, 28), (200, 100)).min() > 240
