"""Accuracy beside speed: what each setting of the bench answers right, on generated videos with known answers.

The embedded model answers through the assistant, from H.264 files, with events that the memory found; its tower has
two blocks, so what merges after a quarter of a large tower merges here after the first. The questions are those of the
micro-world's test videos, of which training saw none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.subjects import Setting, settings, subject_class
from marc.data.prompts import render_question
from marc.data.rows import load_rows
from marc.evaluation.statistics import Estimate, estimate
from marc.grading import gold_answer
from marc.inference.assistant import Inquiry, VideoAssistant
from marc.memory.embedder import EventEmbedder
from marc.model import CompressionConfig, MarcForConditionalGeneration, MarcProcessor
from marc.model.loading import load_model
from marc.types import GenerationOptions
from marc.world.export import export_world

LONGEST_ANSWER = 80
"""Tokens; the longest right answer and its reasoning have 62."""
RETRIEVED_EVENTS = 1
"""Of the two to four events of a generated video; three of eight, which the timed clip has, would be nearly all."""


@dataclass(frozen=True)
class Accuracy:
    """How many questions a setting answered right.

    Attributes:
        setting: Its name.
        right: Share of exact answers, with an interval over videos.
        visual_tokens: Mean number of visual tokens.
        frames: Mean number of frames read.
    """

    setting: str
    right: Estimate
    visual_tokens: float
    frames: float


def measure_accuracy(videos: int, *, questions: int = 12, seed: int = 0) -> tuple[Accuracy, ...]:
    """Asks the embedded model the same questions in every setting.

    Args:
        videos: Number of videos.
        questions: Questions about each.
        seed: Of the test set.
    """
    with TemporaryDirectory(prefix="marc-bench-") as folder:
        return tuple(_measure(Path(folder), videos, questions, seed))


def _measure(folder: Path, videos: int, questions: int, seed: int) -> Iterator[Accuracy]:
    rows = load_rows(export_world(folder, videos=videos, questions=questions, seed=seed))
    model, processor = load_model(device="cpu")
    embedder = EventEmbedder.from_pretrained("tiny", device="cpu")
    prompts = [_prompt(row, model.config.prompt_style) for row in rows]
    for setting in settings(model.config.vision_config.depth):
        assistant = assistant_in(setting, (model, processor), embedder, folder)
        yield _ask_all(setting, assistant, folder, rows, prompts)


def assistant_in(
    setting: Setting,
    loaded: tuple[MarcForConditionalGeneration, MarcProcessor],
    embedder: EventEmbedder,
    folder: Path,
) -> VideoAssistant:
    """The model put into a setting; without compression it gives what stock transformers does, to the bit.

    Args:
        setting: Which; it holds until the same model is put into another one.
        loaded: The model and its processor.
        embedder: Of the memory.
        folder: Where videos are remembered.
    """
    model, processor = loaded
    model.compression = processor.compression = setting.compression or CompressionConfig(target_frames=None)
    return subject_class(setting)(
        memory=setting.remembers,
        memory_folder=folder,
        generation=GenerationOptions(max_new_tokens=LONGEST_ANSWER),
        k=RETRIEVED_EVENTS if setting.frames == "retrieved" else 3,
        loaded=loaded,
        loaded_embedder=embedder,
    )


def _ask_all(
    setting: Setting, assistant: VideoAssistant, folder: Path, rows: list[dict[str, Any]], prompts: list[str]
) -> Accuracy:
    by_video: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        by_video[row["path"]].append(number)
    right, clusters, tokens, frames = [], [], [], []
    for path, asked in by_video.items():
        inquiries = [Inquiry(folder / path, rows[number]["problem"], prompts[number]) for number in asked]
        for number, answer in zip(asked, assistant.ask_batch(inquiries), strict=True):
            right.append(float(answer.answer == gold_answer(rows[number]["solution"])))
            clusters.append(path)
            tokens.append(answer.visual_tokens_after)
            frames.append(answer.frames)
    return Accuracy(setting.name, estimate(right, clusters), sum(tokens) / len(right), sum(frames) / len(right))


def _prompt(row: dict[str, Any], style: str) -> str:
    return render_question(row["problem"], problem_type=row["problem_type"], options=row["options"], style=style)
