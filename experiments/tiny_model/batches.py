"""Batches of the language model's training: number `step` follows from the seed, the phase and the kinds' weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from experiments.tiny_model.bank import FeatureBank, LaidOutVideo, blank_layout, event_layout, full_layout
from experiments.tiny_model.packed_questions import AskedVideos
from experiments.tiny_model.recipe import Phase
from marc.world.questions import KINDS, draw_questions
from marc.world.scenes import Split, WorldVideo, sample_video

STORIES = ("whole story", "scene list")
"""The kinds with long answers, asked in steps of their own."""


def choose(rng: np.random.Generator, shares: dict[str, float]) -> str:
    """Draw a name by its share."""
    names = list(shares)
    return names[int(rng.choice(len(names), p=np.array(list(shares.values()))))]


def make_segments(video: WorldVideo, rng: np.random.Generator, count: int) -> list[int]:
    """Lengths of a video's segments: its events, the longest of them cut at random until there are `count`."""
    lengths = [event.grids for event in video.events]
    while len(lengths) < count:
        index = int(np.argmax(lengths))
        left = int(rng.integers(1, lengths[index]))
        lengths[index : index + 1] = [left, lengths[index] - left]
    return lengths


def lay_out(
    bank: FeatureBank, videos: list[WorldVideo], layout: str, rng: np.random.Generator, *, noisy: bool
) -> list[LaidOutVideo]:
    """Features of the videos in a layout.

    Clean, the event layout has the true events, and a grid lasts a second. Noisy, some grids stand still, videos have
    different paces, and the events are as the memory gives them (now and then one too many) or as they come out
    without the memory: four segments of similar grids, at evenly spread times.
    """
    if layout == "blank":
        return blank_layout(len(videos), bank.features.shape[-1])
    tokens = bank.videos(videos, rng, still_rate=0.1 if noisy and rng.random() < 0.3 else 0.0)
    varied = noisy & (rng.random(len(videos)) < 0.5)
    pace = torch.tensor(np.where(varied, rng.uniform(0.5, 2.0, len(videos)), 1.0))
    if layout == "events":
        blind = noisy and rng.random() < 0.4
        counts = [4 if blind else 2 * int(noisy and rng.random() < 0.1) for _ in videos]
        segments = [make_segments(video, rng, count) for video, count in zip(videos, counts, strict=True)]
        return event_layout(tokens, segments, pace, rng, budget=4, even=blind)
    return full_layout(tokens, pace, pool=1 if layout == "full" else int(layout.removeprefix("pooled-")))


def loss_name(kind: str, *, choice: bool) -> str:
    """Under which name the losses of a kind of question are kept, asked with options or without."""
    return f"{kind} (choice)" if choice else kind


def loss_names(asked: AskedVideos) -> list[str]:
    """The same of every question, video by video."""
    return [loss_name(each.kind, choice=bool(each.options)) for questions in asked.questions for each in questions]


@dataclass(frozen=True)
class Mixture:
    """What a batch asks, and how its videos are shown.

    Attributes:
        layout: One of those of `Phase`.
        style: Prompt style of `marc.data.prompts`.
        weights: How often each kind of question is drawn.
        max_events: Most events of a video.
        choice_rate: Share of multiple choice.
        noisy: See `lay_out`.
    """

    layout: str
    style: str
    weights: dict[str, float]
    max_events: int = 4
    choice_rate: float = 0.0
    noisy: bool = False


@dataclass(frozen=True)
class World:
    """Draws batches.

    Attributes:
        bank: Features of events.
        seed: Of the videos.
        videos: Videos of a batch; three times as many where each is asked for one long answer.
        questions: Questions about each.
    """

    bank: FeatureBank
    seed: int
    videos: int
    questions: int

    def batch(self, step: int, phase: Phase, weights: dict[str, float]) -> AskedVideos:
        """Draw the batch of a training step.

        Args:
            step: Its number in the whole run.
            phase: Its mixture.
            weights: How often each kind should be drawn, by `loss_name`; 1 where it is missing.
        """
        rng = np.random.default_rng((self.seed, step))
        layout, style = choose(rng, phase.layouts), choose(rng, phase.styles)
        stories, choices = rng.random() < phase.stories, bool(rng.random() < phase.choices)
        kinds = STORIES if stories else [kind for kind in phase.kinds or KINDS if kind not in STORIES]
        mixture = Mixture(
            layout,
            style,
            {kind: weights.get(loss_name(kind, choice=choices), 1.0) for kind in kinds},
            max_events=phase.max_events,
            choice_rate=float(choices),
            noisy=bool(rng.random() < phase.noise),
        )
        return self.draw(rng, step, mixture)

    def draw(self, rng: np.random.Generator, step: int, mixture: Mixture, split: Split = "train") -> AskedVideos:
        """Draw batch number `step` of a split with a given mixture."""
        size, count = self.videos, self.questions
        if set(mixture.weights) == set(STORIES):
            size, count = 3 * size, 1
        first, most = 3 * step * self.videos, mixture.max_events
        videos = [sample_video("easy", split, self.seed, first + i, max_events=most) for i in range(size)]
        questions = [
            draw_questions(video, rng, count, weights=mixture.weights, choice_rate=mixture.choice_rate)
            for video in videos
        ]
        shown = lay_out(self.bank, videos, mixture.layout, rng, noisy=mixture.noisy)
        return AskedVideos(shown, questions, mixture.style, jump=bool(rng.random() < 0.5))
