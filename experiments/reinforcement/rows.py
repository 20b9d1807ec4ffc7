"""Questions about micro-world videos: a label for every one, a trace for a few.

So are public sets: many questions with answers, fewer with a reasoning that somebody wrote down.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from experiments.ablation.rows import STORIES
from marc.data.rows import TrainingRow
from marc.world.frames import world_rows
from marc.world.questions import KINDS
from marc.world.scenes import Level, Split

ASKED = tuple(kind for kind in KINDS if kind not in STORIES)
NO_TRACE = ""


def draw_rows(level: Level, split: Split, seed: int, *, videos: int, questions: int) -> list[TrainingRow]:
    """The rows about the first videos of a split, each with its trace."""
    return world_rows(level=level, split=split, seed=seed, videos=videos, questions=questions, kinds=ASKED)


def with_few_traces(rows: Sequence[TrainingRow], share: float) -> list[TrainingRow]:
    """The same rows, of which a drawn share keeps its trace; the others say the answer at once."""
    kept = set(random.Random("traces").sample(range(len(rows)), max(1, round(share * len(rows)))))
    return [row if index in kept else replace(row, process=NO_TRACE) for index, row in enumerate(rows)]


def traced(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """Those that have a trace."""
    return [row for row in rows if row.process != NO_TRACE]
