"""The fast measurement says what the model's own generation says; the shipped weights keep their promises."""

import json
from math import ceil, sqrt
from pathlib import Path

import pytest

from marc.data.prompts import render_question
from marc.inference.assistant import VideoAssistant
from marc.inference.hf import HFBackend
from marc.inference.query import Query
from marc.memory.options import RetrievalOptions
from marc.model.loading import EMBEDDED_FOLDER, load_model
from marc.model.tiny import build_tiny
from marc.world.export import FileOptions, export_world, write_sample
from marc.world.measure import Measured, measure, show, summarise
from marc.world.options import WorldOptions
from marc.world.questions import ABOUT_ONE_EVENT
from marc.world.scenes import sample_video

needs_weights = pytest.mark.skipif(not EMBEDDED_FOLDER.is_dir(), reason="the trained model is not there")

LEAST = {"events": 0.9, "full": 0.85}


def accuracy(results: list[Measured]) -> float:
    return summarise(results)["all"][0]


@needs_weights
@pytest.mark.parametrize(("layout", "least"), LEAST.items())
def test_the_embedded_model_knows_what_it_sees(layout: str, least: float) -> None:
    """Questions in free words about one event; docs/world.md says how far the other kinds are."""
    model, processor = load_model(device="cpu")
    results = measure(model, processor, WorldOptions(seed=11, videos=64, questions=24), layout=layout)
    seen = [result for result in results if result.question.kind in ABOUT_ONE_EVENT and not result.question.options]
    assert len(seen) > 300 and accuracy(seen) >= least


@needs_weights
def test_without_its_video_a_question_is_answered_by_chance() -> None:
    model, processor = load_model(device="cpu")
    world = WorldOptions(seed=11, videos=96, questions=24)
    by_group = summarise(measure(model, processor, world, layout="events", shuffled=True))
    assert by_group["all"][0] < 0.36
    assert by_group["colour"][0] < 0.4 and by_group["precedes"][0] < 0.7 and by_group["exists"][0] < 0.7


@needs_weights
def test_the_assistant_answers_from_files_as_the_measurement_says(tmp_path: Path) -> None:
    """The same questions through H.264, the decoder, the processor and generation."""
    model, processor = load_model(device="cpu")
    world = WorldOptions(seed=11, videos=4, questions=24)
    rows = json.loads(export_world(tmp_path, world, options=FileOptions(hold=4, fps=8.0)).read_text())
    fast = [result.correct for result in measure(model, processor, world, layout="events blind")]
    assistant = VideoAssistant.from_pretrained(memory=None, device="cpu")
    queries = [
        Query(
            tmp_path / row["path"],
            row["problem"],
            render_question(
                row["problem"], problem_type=row["problem_type"], options=row["options"], style="video-r1"
            ),
        )
        for row in rows
    ]
    answers = [answer for begin in range(0, 96, 24) for answer in assistant.ask_batch(queries[begin : begin + 24])]
    slow = [f"<answer>{answer.answer}</answer>" == row["solution"] for answer, row in zip(answers, rows, strict=True)]
    assert all(answer.visual_tokens_after == 4 for answer in answers)
    assert sum(a != b for a, b in zip(fast, slow, strict=True)) <= 3 and sum(slow) >= 0.95 * len(slow)


def test_the_samples_questions_are_answered_with_the_memory(tmp_path: Path) -> None:
    """What the README's first commands do: events found by TransNetV2, three of them retrieved, four visual tokens."""
    sample = tmp_path / "sample.mp4"
    questions = json.loads(write_sample(sample).read_text())["questions"]
    assistant = VideoAssistant.from_pretrained(retrieval=RetrievalOptions(folder=str(tmp_path)), device="cpu")
    for row in questions:
        answer = assistant.ask(sample, row["problem"], options=row["options"])
        assert f"<answer>{answer.answer}</answer>" == row["solution"], row["problem"]
        assert answer.visual_tokens_after == 4


@pytest.mark.parametrize(
    ("layout", "tokens"),
    [
        ("full", 128),
        ("events", 4),
        ("events blind", 4),
        ("frames", 4),
        ("blank", 1),
        ("details tokens:7", 7),
        ("details auto:3", 6),
    ],
)
def test_a_layout_costs_its_tokens(layout: str, tokens: int) -> None:
    """Three events share what one temporal grid costs, and all four tokens are spent; 6 is ``ceil(3 * sqrt(3))``."""
    backend = HFBackend(*load_model(device="cpu"))
    video = next(video for index in range(50) if len((video := sample_video("easy", "test", 0, index)).events) == 3)
    shown = show(video, layout, backend)
    backend.encode([] if layout == "blank" else [shown])
    assert shown.features is not None and len(shown.features) == shown.tokens == tokens
    assert bool(shown.features.any()) == (layout != "blank")
    if layout == "events":
        assert shown.events == tuple(video.event_of_frame[::2])


def test_who_counts_sees_more() -> None:
    """``ceil(N * sqrt(events))`` tokens of ``auto:N`` for most questions, N doubled for those that count."""
    model, processor = load_model(device="cpu")
    results = measure(model, processor, WorldOptions(seed=3, videos=8, questions=12), layout="details auto:2")
    for result in results:
        each = 4 if "How many" in result.question.text else 2
        assert result.visual_tokens == ceil(each * sqrt(result.events)), result.question.text
    assert len({"How many" in result.question.text for result in results}) == 2


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_question_can_be_asked_without_a_picture(family: str) -> None:
    model, processor = build_tiny(family=family)
    assert len(measure(model, processor, WorldOptions(videos=2, questions=1), layout="blank", style="short")) == 2


def test_unknown_layouts_are_refused() -> None:
    model, processor = load_model(device="cpu")
    with pytest.raises(ValueError, match="unknown budget 'sideways'"):
        measure(model, processor, WorldOptions(videos=1), layout="sideways")
