"""What all arms train on: videos of the training split, seen once at every budget, and questions about them.

The tower does not change, so what the language model reads of a video is computed once. Questions carry the teacher's
accuracy ``a_full``: whether its greedy answer from all tokens is the right one.

Shapes: V videos, B videos of a batch, Q questions of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from experiments.ablation.settings import BUDGETS, MethodOptions
from experiments.ablation.views import SeenVideo, Viewer, remembered_events, stack, whole_video
from experiments.tiny_model.answers import Sampler, answers_right
from experiments.tiny_model.bank import VisualTokens
from experiments.tiny_model.batches import STORIES
from experiments.tiny_model.packing import Packed, Packer
from experiments.tiny_model.train import save_atomically
from marc.memory.select import FramePlan
from marc.model import MarcForConditionalGeneration
from marc.world.questions import KINDS, WorldQuestion, draw_questions
from marc.world.renderer import render_video
from marc.world.scenes import Split, WorldVideo, sample_video, video_rng

ASKED = {kind: 1.0 for kind in KINDS if kind not in STORIES}
"""Kinds of questions: all but those with long answers, which the teacher was not taught."""
STYLE = "video-r1"
QUESTIONS = 14
"""Questions about each video of the pool."""
QUESTION_STREAM = 2_000_000_000
"""Added to a video's number to seed its questions."""


@dataclass(frozen=True)
class Batch:
    """One step's questions.

    Attributes:
        rows: Q questions about each of B videos.
        a_full: The teacher's accuracy on each, ``[B, Q]``.
        packed: The questions with what the student sees.
        budget: How it sees them.
        videos: Numbers of the videos in the pool.
    """

    rows: list[list[WorldQuestion]]
    a_full: Tensor
    packed: Packed
    budget: str
    videos: list[int]


@dataclass(frozen=True)
class TrainingPool:
    """Videos seen at every budget, and questions about them.

    Attributes:
        seen: For each budget, V seen videos.
        questions: The questions about each video.
        a_full: The teacher's accuracies, ``[V, Q]``.
        packer: Turns questions into tokens.
    """

    seen: Mapping[str, list[SeenVideo]]
    questions: list[list[WorldQuestion]]
    a_full: Tensor
    packer: Packer

    def batch(self, rng: np.random.Generator, budgets: Mapping[str, float], options: MethodOptions) -> Batch:
        """Draws the batch of a step: its budget, its videos, its questions."""
        budget = str(rng.choice(list(budgets), p=list(budgets.values())))
        videos = rng.choice(len(self.seen[budget]), options.videos).tolist()
        chosen = [rng.permutation(QUESTIONS)[: options.questions].tolist() for _ in videos]
        rows = [
            [self.questions[video][place] for place in places] for video, places in zip(videos, chosen, strict=True)
        ]
        a_full = self.a_full[torch.tensor(videos)[:, None], torch.tensor(chosen)]
        packed = self.packer.pack(rows, self.visual(budget, videos), STYLE)
        return Batch(rows, a_full, packed, budget, videos)

    def visual(self, budget: str, videos: Sequence[int]) -> VisualTokens:
        """What some videos look like at a budget."""
        return stack([self.seen[budget][video] for video in videos])


def see_videos(
    viewer: Viewer, split: Split, seed: int, count: int, budgets: Sequence[str]
) -> dict[str, list[SeenVideo]]:
    """Shows the first `count` videos of a split at some budgets."""
    seen: dict[str, list[SeenVideo]] = {budget: [] for budget in budgets}
    for index in tqdm(range(count), desc=f"{split} videos", unit="video"):
        video = sample_video("easy", split, seed, index)
        frames = render_video(video)
        events = remembered_events(video, frames)
        whole = whole_video(events, BUDGETS["events"])
        tokens = viewer.grids(frames, whole.seconds)
        for budget in budgets:
            compression = BUDGETS[budget]
            plan = whole_video(events, compression)
            if budget == "events":
                plan = with_spare_tokens(plan, video_rng("easy", split, seed, index), budget=tokens.shape[1])
            seen[budget].append(_kept_small(viewer.compress(tokens, plan, compression)))
    return seen


def with_spare_tokens(plan: FramePlan, rng: np.random.Generator, *, budget: int) -> FramePlan:
    """Every other video spends tokens that do not divide on random events, as retrieval does on the best ones."""
    events = len(plan.events)
    if events > budget:
        return plan
    shares = np.full(events, budget // events)
    if rng.random() < 0.5:
        shares[rng.permutation(events)[: budget % events]] += 1
    return FramePlan(plan.seconds, plan.grid_events, plan.events, tuple(shares.tolist()))


def _kept_small(video: SeenVideo) -> SeenVideo:
    return SeenVideo(video.features.to(torch.bfloat16), video.positions.to(torch.int16))


def draw_pool_questions(split: Split, seed: int, count: int) -> list[list[WorldQuestion]]:
    """The fixed questions about the first `count` videos of a split."""
    videos = [sample_video("easy", split, seed, index) for index in range(count)]
    return [questions_about(video, split, seed, index, QUESTIONS) for index, video in enumerate(videos)]


def questions_about(video: WorldVideo, split: Split, seed: int, index: int, count: int) -> list[WorldQuestion]:
    """The fixed questions about video number `index` of a split."""
    return draw_questions(video, video_rng("easy", split, seed, QUESTION_STREAM + index), count, weights=ASKED)


def teacher_accuracies(
    model: MarcForConditionalGeneration,
    packer: Packer,
    sampler: Sampler,
    seen: Sequence[SeenVideo],
    questions: Sequence[Sequence[WorldQuestion]],
    *,
    batch: int = 16,
) -> Tensor:
    """Whether the teacher's greedy answer is right, ``float [V, Q]``."""
    rights = []
    for start in tqdm(range(0, len(seen), batch), desc="teacher", unit="batch"):
        rows = questions[start : start + batch]
        packed = packer.pack(rows, stack(seen[start : start + batch]), STYLE)
        rights.append(answers_right(model, sampler, packed, rows).float())
    return torch.cat(rights)


def load_pool(
    model: MarcForConditionalGeneration, packer: Packer, sampler: Sampler, *, seed: int, count: int, file: Path
) -> TrainingPool:
    """The training pool from a file, made first if it is not there.

    Args:
        model: The teacher.
        packer: Of its processor.
        sampler: Of its processor.
        seed: Of the videos.
        count: Number of videos.
        file: Belongs to this teacher, seed and count.
    """
    questions = draw_pool_questions("train", seed, count)
    if not file.exists():
        seen = see_videos(Viewer(model), "train", seed, count, list(BUDGETS))
        a_full = teacher_accuracies(model, packer, sampler, seen["full"], questions)
        state = {
            "seen": {name: [(video.features, video.positions) for video in videos] for name, videos in seen.items()},
            "a_full": a_full,
        }
        save_atomically(state, file)
    state = torch.load(file, weights_only=True)
    seen = {name: [SeenVideo(*video) for video in videos] for name, videos in state["seen"].items()}
    return TrainingPool(seen, questions, state["a_full"], packer)
