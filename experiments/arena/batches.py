"""Batches of the arena's training: videos of a phase, every token of them, and questions of all kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from experiments.arena.settings import ArenaPhase
from experiments.arena.tower import encode
from experiments.tiny_model.bank import TIME_RATE, LaidOutVideo
from experiments.tiny_model.batches import loss_name
from experiments.tiny_model.packed_questions import AskedVideos
from experiments.tiny_model.tower import Colours
from marc.world.arena.questions import ARENA_KINDS
from marc.world.arena.renderer import render_arena
from marc.world.arena.scenes import ArenaVideo, sample_arena
from marc.world.questions import draw_questions
from marc.world.scenes import Split

MOST_VIDEOS = 8
"""Of a step: so many numbers of videos are its own."""
STYLE = "video-r1"
"""The prompt style that is taught: it asks for reasoning."""


@dataclass(frozen=True)
class ArenaBatches:
    """Draws batches.

    Attributes:
        tower: Trained and frozen.
        colours: How its pixels are normalised.
        seed: Of the videos.
    """

    tower: PreTrainedModel
    colours: Colours
    seed: int

    def batch(self, step: int, phase: ArenaPhase, weights: Mapping[str, float]) -> AskedVideos:
        """Draw the batch of a training step.

        Args:
            step: Its number in the whole run.
            phase: What kind of videos.
            weights: How often each kind of question should be drawn, by `loss_name`; 1 where it is missing.
        """
        rng = np.random.default_rng((self.seed, step))
        choices = bool(rng.random() < phase.choices)
        shares = {kind: weights.get(loss_name(kind, choice=choices), 1.0) for kind in phase.kinds or ARENA_KINDS}
        numbers = range(MOST_VIDEOS * step, MOST_VIDEOS * step + phase.videos)
        return self.draw(rng, numbers, phase, shares, choices=float(choices))

    def draw(
        self,
        rng: np.random.Generator,
        numbers: range,
        phase: ArenaPhase,
        shares: Mapping[str, float],
        *,
        choices: float,
        split: Split = "train",
    ) -> AskedVideos:
        """Some videos of a split, and questions about them.

        Args:
            rng: Draws the questions.
            numbers: Of the videos.
            phase: What kind of videos, and how many questions about each.
            shares: How often each kind is drawn.
            choices: Share of multiple choice.
            split: Whose videos.
        """
        kinds = {kind: ARENA_KINDS[kind] for kind in phase.kinds or ARENA_KINDS}
        videos = [sample_arena(split, self.seed, number, phase.limits) for number in numbers]
        asked = [
            draw_questions(video, rng, phase.questions, weights=dict(shares), choice_rate=choices, kinds=kinds)
            for video in videos
        ]
        return AskedVideos([self.lay_out(video) for video in videos], asked, STYLE, jump=bool(rng.random() < 0.5))

    @torch.no_grad()
    def lay_out(self, video: ArenaVideo) -> LaidOutVideo:
        """Every token of a video at its time."""
        frames = torch.from_numpy(render_arena(video)).float() / 255
        tokens_TPD = encode(self.tower, frames.unflatten(0, (-1, 2)), self.colours)
        seconds = torch.arange(len(tokens_TPD))
        return LaidOutVideo(
            tokens_TPD.flatten(0, 1),
            ((video.rows, video.columns),) * len(seconds),
            tuple(seconds.tolist()),
            1.0,
            torch.cartesian_prod((seconds * TIME_RATE).long(), torch.arange(video.rows), torch.arange(video.columns)),
        )
