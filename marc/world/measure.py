"""Accuracy of a model on thousands of fresh micro-world questions in a minute, without files.

Frames are rendered, encoded by the model's tower and laid out by its own compression (`marc.model`); the questions
about a video are then answered together, greedily. A question counts if its answer is exactly right, whatever the
reasoning before it. The control shows each question another video.

    marc world measure --seed 1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.tiny_model.answers import Sampler, answers_right
from experiments.tiny_model.bank import VisualTokens
from experiments.tiny_model.packing import Packer
from experiments.tiny_model.tower import encode_grids, grids_to_patches
from marc.compression.merge import compress_planned
from marc.compression.plan import VideoPlan, plan_video
from marc.model import CompressionConfig, MarcForConditionalGeneration, MarcProcessor
from marc.model.qwen2_5_vl.modeling import PlannedGrid
from marc.world.export import video_questions
from marc.world.questions import WorldQuestion
from marc.world.renderer import render_video
from marc.world.scenes import Level, WorldVideo, sample_video

LAYOUTS = ("full", "events", "events blind", "frames", "blank")
"""Every token; one frame's tokens with the true events; with each grid an event of its own; the published merge; no
picture at all."""
PATCHES = 4
"""Height and width of a frame in patches."""


@dataclass(frozen=True)
class Measured:
    """One question's outcome."""

    question: WorldQuestion
    events: int
    correct: bool


def lay_out_video(
    model: MarcForConditionalGeneration, tokens_TPD: Tensor, video: WorldVideo, layout: str, seconds_per_grid: float
) -> tuple[Tensor, Tensor]:
    """Features ``[N, D]`` and relative positions ``[N, 3]`` of a video, by the model's own plan and compression."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if layout == "blank":
        return tokens_TPD.new_zeros(1, tokens_TPD.shape[-1]), torch.zeros(1, 3, dtype=torch.long)
    merge = model.config.vision_config.spatial_merge_size
    grids, cells = len(tokens_TPD), PATCHES // merge
    plan: VideoPlan | None = None
    features = tokens_TPD.flatten(0, 1)
    if layout != "full":
        config = CompressionConfig(layout="frames" if layout == "frames" else "events")
        ids = video.event_of_frame[::2] if layout == "events" else list(range(grids))
        plan = plan_video(grids, (cells, cells), config, events=None if layout == "frames" else ids)
        features = compress_planned(tokens_TPD[None], plan)[0].flat
    interval = seconds_per_grid * model.config.vision_config.tokens_per_second
    grid = PlannedGrid(grids, PATCHES, PATCHES, plan, None)
    return features, model.model.get_vision_position_ids(
        0, grid, spatial_merge_size=merge, time_interval=interval, device="cpu"
    ).T


def pad_left(videos: Sequence[tuple[Tensor, Tensor]]) -> VisualTokens:
    """Stack the features and positions of videos with different numbers of tokens."""
    longest = max(len(features) for features, _ in videos)
    pads = [longest - len(features) for features, _ in videos]
    return VisualTokens(
        torch.stack([F.pad(features, (0, 0, pad, 0)) for (features, _), pad in zip(videos, pads, strict=True)]),
        torch.stack([F.pad(positions, (0, 0, pad, 0)) for (_, positions), pad in zip(videos, pads, strict=True)]),
        torch.arange(longest) >= torch.tensor(pads)[:, None],
    )


@torch.no_grad()
def measure(
    model: MarcForConditionalGeneration,
    processor: MarcProcessor,
    *,
    layout: str,
    style: str | None = None,
    level: Level = "easy",
    seed: int = 1,
    videos: int = 128,
    questions: int = 24,
    shuffled: bool = False,
    batch: int = 16,
) -> list[Measured]:
    """Ask a model about test videos.

    Args:
        model: The model.
        processor: Its processor.
        layout: One of `LAYOUTS`.
        style: Prompt style of `marc.data.prompts`; ``None``: the model's own.
        level: Of the world.
        seed: Of the test set; the embedded model's training saw none of it, whatever the seed.
        videos: Number of videos.
        questions: Questions about each.
        shuffled: Show every question the next video instead of its own: what the text alone is worth.
        batch: Videos of one pass.
    """
    packer, sampler, results = Packer(processor), Sampler(processor), []
    for begin in range(0, videos, batch):
        indices = range(begin, min(begin + batch, videos))
        drawn = [sample_video(level, "test", seed, index) for index in indices]
        asked = [
            video_questions(video, "test", seed, index, questions) for video, index in zip(drawn, indices, strict=True)
        ]
        shown = [*drawn[1:], drawn[0]] if shuffled else drawn
        laid_out = []
        for video in shown:
            frames = render_video(video).float() / 255
            tokens = encode_grids(model.model.visual, grids_to_patches(frames.unflatten(0, (-1, 2))))
            laid_out.append(lay_out_video(model, tokens, video, layout, seconds_per_grid=1.0))
        packed = packer.pack(asked, pad_left(laid_out), style or model.config.prompt_style)
        right = answers_right(model, sampler, packed, asked)
        results += [
            Measured(question, len(video.events), bool(value))
            for video, row, values in zip(drawn, asked, right.tolist(), strict=True)
            for question, value in zip(row, values, strict=True)
        ]
    return results


def summarise(results: Sequence[Measured]) -> dict[str, tuple[float, int]]:
    """Accuracy and number of questions, over all, by kind, by format and by number of events."""
    groups: dict[str, list[bool]] = {}
    for result in results:
        keys = ("all", result.question.kind, result.question.problem_type, f"{result.events} events")
        for key in keys:
            groups.setdefault(key, []).append(result.correct)
    return {key: (sum(values) / len(values), len(values)) for key, values in groups.items()}
