"""What a trained model answers right from every token, and from tokens kept at random: the bars of the level."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from experiments.arena.settings import ArenaPhase
from marc.compression import CompressionConfig
from marc.inference.hf import HFBackend
from marc.inference.video_input import VideoInput, VisualPatches
from marc.model.loading import load_model
from marc.world.arena.questions import ARENA_KINDS
from marc.world.arena.scenes import sample_arena
from marc.world.frames import draw_frames
from marc.world.measure import answers_right
from marc.world.questions import draw_questions

PARTS = (1.0, 1 / 4, 1 / 32)
"""Of every token: all of them, and the two of which the level has bars."""


@torch.no_grad()
def measure_bars(folder: Path, phase: ArenaPhase, *, videos: int, questions: int, seed: int) -> str:
    """Accuracies of greedy answers on test videos, as a Markdown table by kind of question.

    Args:
        folder: Of the model.
        phase: Whose videos.
        videos: How many.
        questions: About each.
        seed: Of the videos and questions.
    """
    model, processor = load_model(str(folder), device="cpu")
    backend = HFBackend(model, processor)
    right: dict[str, list[list[bool]]] = defaultdict(list)
    for index in range(videos):
        video = sample_arena("test", seed, index, phase.limits)
        rng = np.random.default_rng((seed, index))
        asked = draw_questions(video, rng, questions, kinds=ARENA_KINDS)
        answered = []
        for part in PARTS:
            patches = VisualPatches.of_frames(processor, draw_frames(video), None)
            shown = VideoInput.of(patches, processor, _kept(part, video.frame_count // 2 * video.rows * video.columns))
            backend.encode([shown])
            answered.append(list(answers_right(backend, model.config.prompt_style, [shown], [asked])))
        for question, outcome in zip(asked, zip(*answered, strict=True), strict=True):
            right[question.kind].append(list(outcome))
    every = [outcome for some in right.values() for outcome in some]
    rows = {"all": every, **dict(sorted(right.items()))}
    lines = ["| questions | n | every token | random 1/4 | random 1/32 |", "| --- | --- | --- | --- | --- |"]
    for name, some in rows.items():
        means = " | ".join(f"{100 * value:.1f}" for value in np.mean(some, axis=0))
        lines.append(f"| {name} | {len(some)} | {means} |")
    return "\n".join(lines)


def _kept(part: float, cells: int) -> CompressionConfig:
    if part == 1:
        return CompressionConfig(target_frames=None)
    return CompressionConfig(layout="random", visual_tokens=max(1, round(part * cells)))
