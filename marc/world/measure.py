"""Accuracy of a model on thousands of fresh micro-world questions in minutes, without files.

Videos are drawn in memory; all else is what `marc ask` does: the processor's patches, the engine's encoding and its
greedy answers to the questions about some videos, in one generation for each budget. A question counts if its answer
is exactly right, whatever the reasoning before it. The control shows each question another video.

    marc world measure --seed 1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from marc.compression.config import CompressionConfig, override_compression
from marc.grading import extract_answer
from marc.inference.hf import HFBackend
from marc.inference.prompts import Prompt
from marc.inference.query import budget_for
from marc.inference.video_input import VideoInput, VisualPatches, every_token, inputs_at
from marc.model import CompressedProcessor, CompressedVLM
from marc.types import FRAMES_PER_GRID, GenerationOptions
from marc.world.arena.scenes import AnyVideo
from marc.world.export import video_questions
from marc.world.frames import draw_frames
from marc.world.levels import sample
from marc.world.options import BLIND, WorldOptions
from marc.world.questions import WorldQuestion
from marc.world.texts import completion_ids, prompt_ids

LAYOUTS = ("full", "events", "events blind", "frames", "blank")
"""Every token; one temporal grid's tokens with the true events; with each grid an event of its own; the published
merge; no picture at all. Any budget of `marc.compression.config` is a layout, too, perhaps behind a rule, such as
``tokens:16`` or ``details auto:8``, and is told the true events."""
UNTOLD = ("full", "frames")
"""Those of them that look at the whole video."""
VIDEOS_AT_ONCE = 16
"""Videos whose questions are answered in one generation."""


@dataclass(frozen=True)
class Measured:
    """One question's outcome.

    Attributes:
        video: Number of its video.
        question: What was asked.
        events: How many its video has.
        correct: Whether it was answered right.
        visual_tokens: What was seen of the video.
    """

    video: int
    question: WorldQuestion
    events: int
    correct: bool
    visual_tokens: int


def measure(
    model: CompressedVLM,
    processor: CompressedProcessor,
    world: WorldOptions,
    *,
    layout: str,
    style: str | None = None,
    shuffled: bool = False,
) -> list[Measured]:
    """Asks a model about test videos.

    Args:
        model: The model.
        processor: Its processor.
        world: Which videos; the embedded model's training saw none of them, whatever the seed.
        layout: One of `LAYOUTS`, or a budget.
        style: Prompt style of `marc.data.prompts`; ``None``: the model's own.
        shuffled: Show every question the next video instead of its own: what the text alone is worth.

    Raises:
        ValueError: If there is no such layout.
    """
    backend = HFBackend(model, processor)
    results = []
    for begin in range(0, world.videos, VIDEOS_AT_ONCE):
        indices = range(begin, min(begin + VIDEOS_AT_ONCE, world.videos))
        drawn = [sample(world.level, "test", world.seed, index) for index in indices]
        asked = [
            video_questions(video, "test", world.seed, index, world.questions)
            for video, index in zip(drawn, indices, strict=True)
        ]
        seen = [show(video, layout, backend) for video in ([*drawn[1:], drawn[0]] if shuffled else drawn)]
        shown = [each for one, row in zip(seen, asked, strict=True) for each in _for_each(one, row, processor)]
        backend.encode(shown)
        rows = [
            (index, video, question)
            for index, video, row in zip(indices, drawn, asked, strict=True)
            for question in row
        ]
        questions = [[question] for _, _, question in rows]
        right = answers_right(backend, style or model.config.prompt_style, shown, questions)
        results += [
            Measured(index, question, len(video.events), correct, own.tokens)
            for (index, video, question), correct, own in zip(rows, right, shown, strict=True)
        ]
    return results


def _for_each(seen: VideoInput, asked: Sequence[WorldQuestion], processor: CompressedProcessor) -> list[VideoInput]:
    """What a model sees of a video for each question: a budget may follow from it, see `budget_for`.

    Args:
        seen: The video as other questions have it.
        asked: The questions.
        processor: The model's.
    """
    budgets = [budget_for(question.text, seen.compression) for question in asked]
    other = [None if own == seen.compression else inputs_at([[seen.patches]], processor, own) for own in budgets]
    return [seen if inputs is None else inputs[0][0] for inputs in other]


def show(video: AnyVideo, layout: str, backend: HFBackend) -> VideoInput:
    """What a model sees of a video in one of `LAYOUTS`, or for a budget.

    Raises:
        ValueError: If there is no such layout.
    """
    processor, whole = backend.processor, every_token(backend.compression)
    if layout == "blank":
        smallest = VideoInput.of(VideoInput.dummy("video", processor, whole).patches, processor, whole)
        backend.encode([smallest])
        assert smallest.features is not None
        return replace(smallest, features=torch.zeros_like(smallest.features))
    events = None if layout in UNTOLD or layout.endswith(BLIND) else video.event_of_frame[::FRAMES_PER_GRID]
    patches = VisualPatches.of_frames(processor, draw_frames(video), events)
    return VideoInput.of(patches, backend.processor, at_budget(layout, backend.compression))


def at_budget(layout: str, base: CompressionConfig) -> CompressionConfig:
    """The compression of a layout that is a budget, perhaps behind a rule.

    Raises:
        ValueError: If it is none.
    """
    rule, _, budget = layout.removesuffix(BLIND).rpartition(" ")
    return override_compression(base, {"budget": budget, **({"layout": rule} if rule else {})})


def answers_right(
    backend: HFBackend, style: str, shown: Sequence[VideoInput], asked: Sequence[Sequence[WorldQuestion]]
) -> list[bool]:
    """Whether each question's answer is right, video by video, if it is a token longer than it should be at most."""
    processor = backend.processor
    pairs = [(video, question) for video, row in zip(shown, asked, strict=True) for question in row]
    prompts = [Prompt(tuple(prompt_ids(processor, question, style)), (video,)) for video, question in pairs]
    longest = max(len(completion_ids(processor, question, style)) for _, question in pairs)
    outputs = backend.generate(prompts, GenerationOptions(max_new_tokens=longest + 1))
    texts = processor.batch_decode(outputs, skip_special_tokens=True)
    return [extract_answer(text) == question.answer for text, (_, question) in zip(texts, pairs, strict=True)]


def mean_visual_tokens(results: Sequence[Measured]) -> float:
    """What a question's video cost on average."""
    return sum(result.visual_tokens for result in results) / len(results)


def summarise(results: Sequence[Measured]) -> dict[str, tuple[float, int]]:
    """Accuracy and number of questions, over all, by kind, by format and by number of events."""
    groups: dict[str, list[bool]] = {}
    for result in results:
        keys = ("all", result.question.kind, result.question.problem_type, f"{result.events} events")
        for key in keys:
            groups.setdefault(key, []).append(result.correct)
    return {key: (sum(values) / len(values), len(values)) for key, values in groups.items()}
