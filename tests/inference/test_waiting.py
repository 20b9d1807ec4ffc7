"""Questions that wait are told once, when the source shows what they ask for."""

from types import SimpleNamespace

import numpy as np
import pytest

from marc.inference.waiting import WaitingQuestions, check_of
from marc.memory.embedder import QuestionEmbedding
from marc.memory.live import LiveMemory
from marc.memory.options import MemoryOptions


class Embedder:
    """A frame points up as far as it is bright; questions point up."""

    name, device, image_size, dimension = "brightness", "cpu", 16, 2

    @property
    def identity(self):
        return {"fingerprint": "b" * 64, "precision": "fp32"}

    def embed_frames(self, frames):
        heights = [float(frame.mean()) / 255 for frame in frames]
        return np.array([(np.sqrt(1 - height**2), height) for height in heights], np.float32)

    def embed_questions(self, questions):
        return [QuestionEmbedding(np.array([0, 1], np.float32), question, 1, 8) for question in questions]


class Assistant:
    """Says yes where the last frame is bright; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked = []

    def ask(self, frames, question):
        self.asked.append((question, float(frames.seconds[-1])))
        return SimpleNamespace(answer="Yes" if frames.rgb[-1].mean() > 200 else "no")


def watch(folder, questions, shades, assistant, above=None):
    """Pushes a frame a second of each shade; gives what was told."""
    cutting = MemoryOptions("uniform", 1.0, 20.0, 1.0)
    memory = LiveMemory("lamp", Embedder(), memory=cutting, folder=folder)
    waiting, told = WaitingQuestions(assistant, memory, questions, above), []
    for second, shade in enumerate(shades):
        memory.push(np.full((16, 16, 3), shade, np.uint8), float(second))
        told += waiting.look()
        told += waiting.look()
    memory.close()
    return told


def test_a_question_is_told_once_with_the_time(tmp_path):
    shades = [20, 30] * 10 + [240] * 5 + [20] * 5
    told = watch(tmp_path, ["when a lamp appears"], shades, Assistant())
    assert [(each.question, each.second) for each in told] == [("when a lamp appears", 20.0)]
    assert told[0].score == pytest.approx(240 / 255, abs=0.02)


def test_the_model_is_asked_only_where_a_frame_stands_out(tmp_path):
    assistant = Assistant()
    watch(tmp_path, ["a lamp"], [20 + number % 7 for number in range(60)] + [130] * 2, assistant)
    looks = [second for _, second in assistant.asked]
    assert len(looks) < 32
    assert 60.0 in looks
    assert {question for question, _ in assistant.asked} == {"Is there a lamp?"}


def test_a_cosine_of_ones_own_is_kept_to(tmp_path):
    assistant = Assistant()
    told = watch(tmp_path, ["a lamp"], [20, 20, 150, 20, 240], assistant, above=0.9)
    assert assistant.asked == [("Is there a lamp?", 4.0)]
    assert [each.second for each in told] == [4.0]


def test_what_was_told_is_not_told_after_a_restart(tmp_path):
    assert watch(tmp_path, ["a lamp"], [20, 240], Assistant())
    assert not watch(tmp_path, ["a lamp"], [240, 240], Assistant())


@pytest.mark.parametrize(
    ("question", "check"),
    [
        ("when a red car appears", "Is there a red car?"),
        ("Tell me when somebody comes.", "Is there somebody?"),
        ("a fire", "Is there a fire?"),
        ("Is the door open?", "Is the door open?"),
        ("whenever", "Is there whenever?"),
    ],
)
def test_a_question_that_waits_becomes_one_that_is_asked(question, check):
    assert check_of(question) == check


@pytest.mark.parametrize("question", ["", "when", "?", "  "])
def test_what_waits_for_nothing_is_refused(question):
    with pytest.raises(ValueError, match="says for what"):
        check_of(question)
