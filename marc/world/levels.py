"""The levels of the micro-world behind one door: what a video shows, its pixels, and what is asked about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marc.world.arena.questions import ARENA_KINDS
from marc.world.arena.renderer import render_arena
from marc.world.arena.scenes import AnyVideo, ArenaVideo, sample_arena
from marc.world.questions import KINDS, WorldQuestion, draw_questions
from marc.world.renderer import render_video
from marc.world.scenes import SIZE, Level, Split, sample_video


def sample(level: Level, split: Split, seed: int, index: int) -> AnyVideo:
    """Video number `index` of a level and split: the same arguments give the same one on every machine."""
    return sample_arena(split, seed, index) if level == "arena" else sample_video(level, split, seed, index)


def render(video: AnyVideo, *, scale: int = 1) -> Tensor:
    """All frames of a video: ``uint8 [T, scale * H, scale * W, 3]``, see `marc.world.renderer.render_video`."""
    if isinstance(video, ArenaVideo):
        return torch.from_numpy(render_arena(video, scale=scale))
    return render_video(video, scale=scale)


def frame_pixels(level: Level) -> tuple[int, int]:
    """Height and width of a level's frames."""
    return ArenaVideo("", (), ()).size if level == "arena" else (SIZE, SIZE)


def questions(
    video: AnyVideo, rng: np.random.Generator, count: int, *, choice_rate: float = 0.33
) -> list[WorldQuestion]:
    """So many different questions about a video, of all kinds of its level, see `draw_questions`."""
    return draw_questions(video, rng, count, choice_rate=choice_rate, kinds=kinds_of(video))


def kinds_of(video: AnyVideo) -> Mapping[str, Any]:
    """The kinds of questions of a video's level, by name."""
    return ARENA_KINDS if isinstance(video, ArenaVideo) else KINDS
