"""What can be known of a video of level ``arena`` from the visual tokens that were kept, without any model.

The ideal reader knows the facts on which a question hangs (`marc.world.questions.Fact`) and which token every cell of
every temporal grid ended in. It reads a fact if some token is made of enough of it, answers right if it can read all
facts, and guesses otherwise. It is an upper bound of what can be read, under the assumptions of `READABLE`; a model
that was taught something else reads less.

Shapes: T temporal grids, P cells of a grid, N tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray

from marc.compression.cells import covering
from marc.compression.config import CompressionConfig
from marc.compression.details import choose
from marc.compression.plan import VideoPlan, plan_video
from marc.compression.rivals.rule import EncodedVideo
from marc.compression.shares import level
from marc.world.arena.renderer import render_arena
from marc.world.arena.scenes import ArenaVideo
from marc.world.questions import Fact, WorldQuestion

Tokens = NDArray[np.int64]
"""Of each cell of each grid, the token that it went into, or -1: ``[T, P]``."""
Rule = Callable[[ArenaVideo, int, np.random.Generator], Tokens]

READABLE: Mapping[str, float] = {"sign": 0.6, "mark": 0.3, "actor": 0.1, "scene": 0.5}
"""The part of a token that something must make up to be read: a letter and a digit need nearly a whole one, a coloured
mark a third, something larger that moves a tenth; a scene, which fills every cell, half."""
CHANCE: Mapping[str, float] = {
    "sign": 0.01,
    "star": 1 / 6,
    "cause": 1 / 6,
    "actor colour": 1 / 6,
    "actor shape": 1 / 4,
    "actor direction": 1 / 4,
    "scene of sign": 1 / 4,
    "first sign": 1 / 2,
    "neighbour": 1 / 4,
    "precedes": 1 / 2,
    "longer": 1 / 2,
    "count scenes": 1 / 4,
    "count signs": 1 / 4,
    "count stars": 1 / 4,
    "count actors": 1 / 3,
    "sign exists": 0.0,
}
"""Of a guess in free words, by kind of question; among options it is one of these. Who sees no such sign says no."""


def every_token(video: ArenaVideo, count: int, rng: np.random.Generator) -> Tokens:
    """Each cell a token of its own, whatever the budget."""
    return np.arange(_cells(video)).reshape(-1, video.rows * video.columns)


def random_tokens(video: ArenaVideo, count: int, rng: np.random.Generator) -> Tokens:
    """So many cells, drawn at random."""
    tokens = np.full(_cells(video), -1)
    tokens[rng.permutation(len(tokens))[:count]] = np.arange(min(count, len(tokens)))
    return tokens.reshape(-1, video.rows * video.columns)


def uniform_frames(video: ArenaVideo, count: int, rng: np.random.Generator) -> Tokens:
    """Whole grids, evenly spread over the video; the one that a budget pays for in part is pooled to it."""
    grids, cells = video.frame_count // 2, video.rows * video.columns
    kept = min(grids, ceil(count / cells))
    budgets = {int((index + 0.5) * grids / kept): min(cells, count - index * cells) for index in range(kept)}
    return _pooled(video, budgets)


def tiny_frames(video: ArenaVideo, count: int, rng: np.random.Generator) -> Tokens:
    """Every grid, pooled to its part of the budget; fewer of them where that is less than a token each."""
    grids, cells = video.frame_count // 2, video.rows * video.columns
    kept = min(grids, count)
    places = [int((index + 0.5) * grids / kept) for index in range(kept)]
    return _pooled(video, dict(zip(places, level(count, kept, cells), strict=True)))


def event_layout(video: ArenaVideo, count: int, rng: np.random.Generator) -> Tokens:
    """The layout ``events`` with the true events (`marc.compression.plan`)."""
    plan = plan_video(
        video.frame_count // 2,
        (video.rows, video.columns),
        CompressionConfig(visual_tokens=count),
        events=video.event_of_frame[::2],
    )
    return _carried_out(video, plan)


def details(video: ArenaVideo, count: int, rng: np.random.Generator) -> Tokens:
    """The layout ``details`` (`marc.compression.details`) with the true events, as it chooses by pixels."""
    frames = torch.from_numpy(render_arena(video)).float() / 255 - 0.5
    rows, columns = video.rows, video.columns
    pixels = frames.unflatten(2, (columns, -1)).unflatten(1, (rows, -1)).unflatten(0, (-1, 2))
    cells = pixels.permute(0, 2, 4, 1, 3, 5, 6).flatten(3).flatten(1, 2)
    choice = choose(EncodedVideo(cells, (rows, columns), video.event_of_frame[::2]), count)
    kept = torch.cat((choice.anchors, choice.details)).numpy()
    tokens = np.full(_cells(video), -1)
    tokens[kept] = np.arange(len(kept))
    return tokens.reshape(len(cells), -1)


def _cells(video: ArenaVideo) -> int:
    return video.frame_count // 2 * video.rows * video.columns


def _pooled(video: ArenaVideo, budgets: Mapping[int, int]) -> Tokens:
    """Single grids, each pooled to so many tokens; all others are dropped."""
    size, grids = (video.rows, video.columns), video.frame_count // 2
    tokens = np.full((grids, size[0] * size[1]), -1)
    for grid, budget in budgets.items():
        plan = plan_video(1, size, CompressionConfig(visual_tokens=budget))
        tokens[grid] = tokens.max() + 1 + _members(size, plan, 0)
    return tokens


def _carried_out(video: ArenaVideo, plan: VideoPlan) -> Tokens:
    """The tokens of a plan that merges runs of grids."""
    tokens = np.full((plan.grids, plan.size[0] * plan.size[1]), -1)
    for index, (start, length, _) in enumerate(plan.windows):
        tokens[start : start + length] = tokens.max() + 1 + _members(plan.size, plan, index)
    return tokens


def _members(size: tuple[int, int], plan: VideoPlan, index: int) -> Tokens:
    """The cell of a merged grid that covers most of each place: ``[P]``."""
    return np.array(covering(size, plan.cells[index]))


def is_read(fact: Fact, tokens: Tokens, columns: int) -> bool:
    """Whether some token is made of enough of a fact.

    Args:
        fact: The fact.
        tokens: See `Tokens`.
        columns: Cells of a grid's width.
    """
    sizes = np.bincount(tokens[tokens >= 0])
    if fact.cells:
        places = [(grid, row * columns + column) for grid, (row, column) in zip(fact.grids, fact.cells, strict=True)]
        shown = np.array([tokens[place] for place in places])
    else:
        shown = tokens[list(fact.grids)].reshape(-1)
    shown = shown[shown >= 0]
    share = np.bincount(shown, minlength=len(sizes)) / np.maximum(sizes, 1)
    return bool(share.max(initial=0.0) >= READABLE[fact.sort])


def expected_accuracy(question: WorldQuestion, tokens: Tokens, columns: int) -> float:
    """How likely the ideal reader is to answer right.

    Args:
        question: About the video.
        tokens: What was kept of it.
        columns: Cells of a grid's width.
    """
    if all(is_read(fact, tokens, columns) for fact in question.facts):
        return 1.0
    return 1 / len(question.options) if question.options else CHANCE[question.kind]


RULES: Mapping[str, Rule] = {
    "every token": every_token,
    "random": random_tokens,
    "uniform frames": uniform_frames,
    "tiny frames": tiny_frames,
    "events": event_layout,
    "details": details,
}
"""What the reader can be asked about, by name."""
