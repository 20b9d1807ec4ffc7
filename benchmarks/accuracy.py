"""Accuracy beside speed: what each setting of the bench answers right, on generated videos with known answers.

The embedded model, or another one of the micro-world, answers through the assistant, from H.264 files, with events
that the memory found. The embedded one's tower has two blocks, so what merges after a quarter of a large tower merges
there after the first. The questions are those of the micro-world's test videos, of which training saw none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.systems import Setting, settings
from marc.compression import CompressionConfig
from marc.data.prompts import render_question
from marc.data.row_files import load_rows
from marc.evaluation.statistics import Estimate, estimate
from marc.grading import gold_answer
from marc.inference.assistant import VideoAssistant
from marc.inference.backend import Backend
from marc.inference.hf import HFBackend
from marc.inference.query import Query
from marc.memory.embedder import EventEmbedder
from marc.memory.options import RetrievalOptions
from marc.model.loading import load_model
from marc.types import GenerationOptions
from marc.world.export import export_world
from marc.world.options import WorldOptions

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


def measure_accuracy(
    videos: int, *, model: str = "tiny", questions: int = 12, seed: int = 0, own: Mapping[str, Any] | None = None
) -> tuple[Accuracy, ...]:
    """Asks a model of the micro-world the same questions in every setting.

    Args:
        videos: Number of videos.
        model: The embedded one, or another's folder.
        questions: Questions about each.
        seed: Of the test set.
        own: See `benchmarks.systems.settings`.
    """
    with TemporaryDirectory(prefix="marc-bench-") as name:
        folder = Path(name)
        rows = load_rows(export_world(folder, WorldOptions(seed=seed, videos=videos, questions=questions)))
        backend = HFBackend(*load_model(model, device="cpu"))
        embedder = EventEmbedder.from_pretrained("tiny", device="cpu")
        compared = settings(backend.config.vision_config.depth, own)
        return tuple(
            _ask_all(setting, assistant_in(setting, backend, embedder, folder), folder, rows) for setting in compared
        )


def assistant_in(setting: Setting, backend: Backend, embedder: EventEmbedder, folder: Path) -> VideoAssistant:
    """The model put into a setting; without compression it gives what stock transformers does, to the bit.

    Args:
        setting: Which; it holds until the same model is put into another one.
        backend: The model.
        embedder: Of the memory.
        folder: Where videos are remembered.
    """
    backend.compression = setting.compression or CompressionConfig(target_frames=None)
    k = RETRIEVED_EVENTS if setting.frames == "retrieved" else RetrievalOptions.k
    return VideoAssistant(
        backend,
        setting.selector(embedder, RetrievalOptions(k=k, folder=str(folder))),
        generation=GenerationOptions(max_new_tokens=LONGEST_ANSWER),
    )


def _ask_all(setting: Setting, assistant: VideoAssistant, folder: Path, rows: list[dict[str, Any]]) -> Accuracy:
    style = assistant.backend.config.prompt_style
    by_video: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        by_video[row["path"]].append(number)
    right, clusters, tokens, frames = [], [], [], []
    for path, asked in by_video.items():
        queries = [Query(folder / path, rows[number]["problem"], _prompt(rows[number], style)) for number in asked]
        for number, answer in zip(asked, assistant.ask_batch(queries), strict=True):
            right.append(float(answer.answer == gold_answer(rows[number]["solution"])))
            clusters.append(path)
            tokens.append(answer.visual_tokens_after)
            frames.append(answer.frames)
    return Accuracy(setting.name, estimate(right, clusters), sum(tokens) / len(right), sum(frames) / len(right))


def _prompt(row: dict[str, Any], style: str) -> str:
    return render_question(row["problem"], problem_type=row["problem_type"], options=row["options"], style=style)
