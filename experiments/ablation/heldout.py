"""Held-out videos as the memory knows them, and how many questions about them a model answers.

The videos are written as H.264 files, cut by the real segmenter (TransNetV2) and embedded by the shipped dual
encoder, once; `marc.memory` keeps both on disk. What follows (frames, tower, compression, positions) is computed in
memory from the rendered frames, and questions are answered in packed batches. `agreement` asks
`marc.inference.assistant.VideoAssistant` the same questions about the files.

Shapes: V videos, Q questions of a video, E events.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from experiments.ablation.pool import STYLE, questions_about
from experiments.ablation.settings import BUDGETS, Condition
from experiments.ablation.views import SeenVideo, Viewer, retrieved, stack, whole_video
from experiments.tiny_model.answers import Sampler, answers_right
from experiments.tiny_model.packing import Packer, prompt
from marc.inference.assistant import Inquiry, VideoAssistant
from marc.memory.embedder import EventEmbedder
from marc.memory.index import remember
from marc.memory.options import MemoryOptions
from marc.memory.store import VideoMemory
from marc.memory.vectors import cosine_scores
from marc.model import MarcForConditionalGeneration
from marc.world.export import FileOptions, cuts_in_seconds, export_world
from marc.world.questions import WorldQuestion
from marc.world.renderer import render_video
from marc.world.scenes import WorldVideo, sample_video

EMBEDDER = "tiny"
TOGETHER = 8
"""Questions about the same frames that are packed into one sequence."""
CUT_TOLERANCE = 0.1
"""Seconds by which a found cut may be off."""
ONE_FRAME = 4
"""Visual tokens of one frame."""
FILES = FileOptions(hold=4, fps=8.0)
"""Half a second for each frame, as by default, but fewer video frames for the segmenter to read."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out videos.

    Attributes:
        videos: V videos.
        files: Of each.
        memories: Events and embeddings of each.
        questions: Q about each.
        scores: Similarity of every question with the events of its video, ``float32 [Q, E]`` for each.
    """

    videos: list[WorldVideo]
    files: list[Path]
    memories: list[VideoMemory]
    questions: list[list[WorldQuestion]]
    scores: list[NDArray[np.float32]]

    @property
    def asked(self) -> list[WorldQuestion]:
        """All questions, video by video."""
        return [question for row in self.questions for question in row]


def prepare_heldout(folder: Path, *, seed: int, videos: int, questions: int, segmenter: str) -> HeldOut:
    """Writes, cuts and embeds the videos that are not there yet; a killed run goes on.

    Args:
        folder: Receives the files and the memories.
        seed: Of the videos and questions.
        videos: Number of videos.
        questions: Questions about each.
        segmenter: See `marc.memory.MemoryOptions`.
    """
    rows = json.loads(
        export_world(folder, seed=seed, videos=videos, questions=questions, options=FILES).read_text(encoding="utf-8")
    )
    files = [folder / path for path in dict.fromkeys(row["path"] for row in rows)]
    embedder = EventEmbedder.from_pretrained(EMBEDDER)
    options = MemoryOptions(segmenter=segmenter)
    memories = [
        remember(file, embedder, options, folder=folder / "memory")
        for file in tqdm(files, desc="memory", unit="video")
    ]
    drawn = [sample_video("easy", "test", seed, index) for index in range(videos)]
    asked = [questions_about(video, "test", seed, index, questions) for index, video in enumerate(drawn)]
    scores = [
        np.stack([cosine_scores(embedder.embed_question(question.text).vector, memory.embeddings) for question in row])
        for row, memory in zip(asked, memories, strict=True)
    ]
    return HeldOut(drawn, files, memories, asked, scores)


def found_cuts(heldout: HeldOut) -> tuple[int, int, int]:
    """Cuts of the videos, how many of them the memory's events begin at, and events that begin elsewhere."""
    true, hits, others = 0, 0, 0
    for video, memory in zip(heldout.videos, heldout.memories, strict=True):
        cuts = np.array(cuts_in_seconds(video))
        starts = np.array([event.start for event in memory.events[1:]])
        close = np.abs(cuts[:, None] - starts) <= CUT_TOLERANCE
        true, hits, others = true + len(cuts), hits + int(close.any(1).sum()), others + int((~close.any(0)).sum())
    return true, hits, others


def agreement(
    model_name: str, heldout: HeldOut, condition: Condition, right: NDArray[np.bool_], *, segmenter: str, videos: int
) -> float:
    """Part of the questions about the first files that `VideoAssistant` answers right where `sit` says so, or neither.

    Args:
        model_name: The model that sat.
        heldout: What it was asked about.
        condition: With retrieval.
        right: Outcome of `sit`.
        segmenter: Of the memory.
        videos: How many files to ask about.
    """
    assert condition.k is not None
    assistant = VideoAssistant(
        model_name,
        embedder_name=EMBEDDER,
        k=condition.k,
        memory_options=MemoryOptions(segmenter=segmenter),
        memory_folder=heldout.files[0].parents[1] / "memory",
        device="cpu",
        compression=BUDGETS[condition.budget].to_dict(),
    )
    same = []
    number = 0
    for file, row in zip(heldout.files[:videos], heldout.questions, strict=False):
        answers = assistant.ask_batch([Inquiry(file, question.text, prompt(question, STYLE)) for question in row])
        for answer, question in zip(answers, row, strict=True):
            same.append((answer.answer == question.answer) == bool(right[number]))
            number += 1
    return sum(same) / len(same)


@dataclass(frozen=True)
class Exam:
    """Questions under one condition, ready to be asked.

    Attributes:
        seen: Everything that is shown.
        rows: Number in ``seen`` and numbers of the questions, at most `TOGETHER`, that are asked about it.
    """

    seen: list[SeenVideo]
    rows: list[tuple[int, list[int]]]


def prepare_exam(viewer: Viewer, heldout: HeldOut, condition: Condition) -> Exam:
    """Shows the held-out videos under a condition."""
    compression = BUDGETS[condition.budget]
    seen: list[SeenVideo] = []
    groups: list[list[int]] = []
    first = 0
    for video, memory, scores_QE in zip(heldout.videos, heldout.memories, heldout.scores, strict=True):
        frames = render_video(video)
        plans = [
            whole_video(memory.events, compression)
            if condition.k is None
            else retrieved(memory, scores.tolist(), condition.k, compression, budget=ONE_FRAME)
            for scores in scores_QE
        ]
        known: dict[tuple[bytes, bytes, tuple[int, ...] | None], list[int]] = {}
        for place, plan in enumerate(plans):
            key = (plan.seconds.tobytes(), plan.grid_events.tobytes(), plan.shares)
            if key not in known:
                known[key] = []
                groups.append(known[key])
                seen.append(viewer.see(frames, plan, compression))
            known[key].append(first + place)
        first += len(scores_QE)
    rows = [
        (index, group[start : start + TOGETHER])
        for index, group in enumerate(groups)
        for start in range(0, len(group), TOGETHER)
    ]
    return Exam(seen, sorted(rows, key=lambda row: len(row[1])))


def sit(
    model: MarcForConditionalGeneration,
    packer: Packer,
    sampler: Sampler,
    exam: Exam,
    asked: Sequence[WorldQuestion],
    *,
    batch: int = 32,
) -> NDArray[np.bool_]:
    """Which of the questions a model answers right, ``bool [V * Q]``.

    Rows with fewer questions than the longest of their batch repeat one.
    """
    right = np.zeros(len(asked), dtype=np.bool_)
    for start in range(0, len(exam.rows), batch):
        rows = exam.rows[start : start + batch]
        longest = max(len(numbers) for _, numbers in rows)
        padded = [numbers + numbers[-1:] * (longest - len(numbers)) for _, numbers in rows]
        questions = [[asked[number] for number in numbers] for numbers in padded]
        visual = stack([exam.seen[index] for index, _ in rows])
        packed = packer.pack(questions, visual, STYLE)
        right[np.array(padded)] = answers_right(model, sampler, packed, questions).numpy()
    return right
