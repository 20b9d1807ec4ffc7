"""What all arms train on: rows about micro-world videos, as a training file holds them.

Rows carry the cuts that the memory would find, and the teacher's accuracy ``a_full``: that of its one greedy answer
from all tokens, by the grader of ``marc data teacher``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from experiments.ablation.evaluation import STYLE, longest_answer
from experiments.ablation.settings import BUDGETS
from marc.data.rows import TrainingRow, parse_row
from marc.inference.hf import HFBackend
from marc.inference.video_input import at_compression
from marc.memory.descriptors import BlockDescriptors, Descriptors, block_means
from marc.memory.events import cut_into_events
from marc.training.dataset import to_example
from marc.training.reader import VisualReader
from marc.training.teacher import TeacherCache, TeacherGrader, TeacherOptions, model_fingerprint
from marc.world.export import FileOptions, cuts_in_seconds, to_row
from marc.world.frames import WorldFrames
from marc.world.questions import KINDS, WorldQuestion, draw_questions
from marc.world.renderer import render_video
from marc.world.scenes import Split, WorldVideo, sample_video, video_rng

STORIES = ("whole story", "scene list")
"""Kinds of questions with long answers, which the teacher was not taught."""
ASKED = {kind: 1.0 for kind in KINDS if kind not in STORIES}
"""Kinds of questions that are asked, and how often."""
QUESTION_STREAM = 2_000_000_000
"""Added to a video's number to seed its questions."""
VIDEOS_AT_ONCE = 16
"""Videos about which the teacher is asked together."""


def questions_about(video: WorldVideo, split: Split, seed: int, index: int, count: int) -> list[WorldQuestion]:
    """The fixed questions about video number `index` of a split."""
    return draw_questions(video, video_rng("easy", split, seed, QUESTION_STREAM + index), count, weights=ASKED)


def rows_about(
    video: WorldVideo, cuts: Sequence[float], questions: Sequence[WorldQuestion], first: int
) -> list[TrainingRow]:
    """Questions about a video as rows, whose path is the video's name and whose numbers begin with `first`."""
    return [
        parse_row({**to_row(question, video, video.name, number), "cuts": list(cuts)})
        for number, question in enumerate(questions, start=first)
    ]


def draw_rows(split: Split, seed: int, *, videos: int, questions: int) -> list[TrainingRow]:
    """The fixed rows about the first videos of a split, with what the memory would cut, without a teacher.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``.
        seed: Another seed is another set.
        videos: Number of videos.
        questions: Questions about each.
    """
    rows = []
    for index in tqdm(range(videos), desc=f"{split} rows", unit="video", delay=5):
        video = sample_video("easy", split, seed, index)
        asked = questions_about(video, split, seed, index, questions)
        rows += rows_about(video, remembered_cuts(video), asked, index * questions)
    return rows


def remembered_cuts(video: WorldVideo) -> list[float]:
    """Seconds at which the memory's events begin where all cuts are found: its own rules, without the network."""
    options = FileOptions()
    frames = render_video(video)
    step = round(1 / options.seconds_per_frame)
    blocks = block_means(frames[::step].numpy(), BlockDescriptors.ROWS, BlockDescriptors.COLUMNS)
    descriptors = Descriptors(np.arange(len(blocks), dtype=np.float64), blocks.reshape(len(blocks), -1))
    duration = len(frames) * options.seconds_per_frame
    return [event.start for event in cut_into_events(cuts_in_seconds(video), duration, descriptors)[1:]]


def with_teacher(
    teacher: HFBackend, rows: Sequence[TrainingRow], folder: Path, *, questions: int
) -> list[TrainingRow]:
    """Rows with the accuracy of the teacher's greedy answer from all tokens.

    Args:
        teacher: Answers; its budget is left as it is.
        rows: Video by video.
        folder: Keeps what was answered; a killed run goes on.
        questions: Rows of each video.
    """

    @contextmanager
    def with_every_token() -> Iterator[HFBackend]:
        with at_compression(teacher.model, BUDGETS["full"]):
            yield teacher

    grader = TeacherGrader(
        with_every_token,
        VisualReader(teacher.processor, WorldFrames(), keep=1),
        TeacherOptions(samples=1, temperature=0.0, max_new_tokens=longest_answer(teacher.processor, rows)),
        TeacherCache(folder),
        model_fingerprint(teacher.model),
    )
    known: list[TrainingRow] = []
    size = VIDEOS_AT_ONCE * questions
    for start in tqdm(range(0, len(rows), size), desc="teacher", unit="batch", delay=5):
        some = rows[start : start + size]
        accuracies = grader.accuracies([to_example(row, "", style=STYLE) for row in some])
        known += [replace(row, a_full=value) for row, value in zip(some, accuracies, strict=True)]
    return known
