"""Features of the frozen tower for every kind of easy event, and new videos put together from them without it.

At `SPEED` pixels a frame an object is back where it was after `CYCLE` temporal grids, so one clip of so many grids
stands for an event of any length. A video is the concatenation of such clips; then its tokens are laid out as the
model will read them: all of them (``full``), pooled over time (``pooled``), or one pooled grid per event at its time
(``events``).

Shapes: L labels, V variants, B videos, T temporal grids, P merged tokens of a grid, W features of all streams of a
token (`marc.model.streams`), N visual tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import isqrt

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from experiments.tiny_model.tower import KINDS, Colours, draw_pairs, encode_grids, grids_to_patches, through_a_codec
from marc.compression.cells import Cells
from marc.world.scenes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, SIZE, SPEED, STEPS, WorldEvent, WorldVideo

CYCLE = SIZE // (2 * SPEED)
"""Temporal grids after which a clip repeats."""
TIME_RATE = 2.0
"""Positions per second (``tokens_per_second`` of the model)."""


@dataclass(frozen=True, eq=False)
class LaidOutVideo:
    """The visual tokens of a video as the language model reads them, merged more freely than any plan would.

    Attributes:
        features: ``[N, W]``.
        cells: Size of every grid.
        seconds: Time of every grid's first frame.
        pace: Seconds from a grid to the next before anything was merged.
        positions: Time, row and column relative to the video's first position, ``int64 [N, 3]``, for families whose
            positions count seconds.
    """

    features: Tensor
    cells: tuple[Cells, ...]
    seconds: tuple[float, ...]
    pace: float
    positions: Tensor

    @property
    def frame_seconds(self) -> tuple[float, ...]:
        """Times of the two frames of every grid, as if each had been sampled."""
        return tuple(time for start in self.seconds for time in (start, start + self.pace / 2))


class FeatureBank:
    """Tower features of `variants` clips of every label, ``[L, V, CYCLE + 1, P, W]``; the last grid stands still."""

    def __init__(self, features: Tensor) -> None:
        self.features = features

    @classmethod
    @torch.no_grad()
    def build(cls, tower: PreTrainedModel, colours: Colours, *, variants: int, seed: int) -> FeatureBank:
        """Render and encode all clips; a minute on one core at 16 variants."""
        generator = torch.Generator(device=tower.device).manual_seed(seed)
        labels = torch.cartesian_prod(*(torch.arange(kinds, device=tower.device) for kinds in KINDS))
        steps = torch.tensor([STEPS[name] for name in DIRECTIONS], device=tower.device)[labels[:, 3]]
        bank = []
        for _ in range(variants):
            start = torch.randint(SIZE, (len(labels), 2), generator=generator, device=tower.device)
            clip = []
            for grid in range(CYCLE + 1):
                speed = torch.full((len(labels),), SPEED if grid < CYCLE else 0, device=tower.device)
                frames, _ = draw_pairs(labels, start + 2 * SPEED * grid * steps, speed, generator)
                clip.append(encode_grids(tower, grids_to_patches(through_a_codec(frames, generator), colours)))
            bank.append(torch.stack(clip, dim=1))
        return cls(torch.stack(bank, dim=1).to(torch.bfloat16))

    def videos(self, videos: Sequence[WorldVideo], rng: np.random.Generator, *, still_rate: float = 0.0) -> Tensor:
        """Features of easy videos with clips drawn at random: ``[B, T, P, W]`` in float32.

        Args:
            videos: Easy videos of one length; what they show is taken from them, how it looks from the bank.
            rng: Draws the variants.
            still_rate: Share of grids whose two frames are the same, as when a slow video is sampled quickly.
        """
        rows, variants, grids = [], [], []
        for video in videos:
            for event in video.events:
                rows += [label_index(event.background, *_attributes(event))] * event.grids
                variants += [int(rng.integers(self.features.shape[1]))] * event.grids
                offset = int(rng.integers(CYCLE))
                grids += [(offset + step) % CYCLE for step in range(event.grids)]
        still = rng.random(len(grids)) < still_rate
        columns = torch.from_numpy(np.where(still, CYCLE, np.array(grids)))
        picked = self.features[torch.tensor(rows), torch.tensor(variants), columns]
        return picked.view(len(videos), -1, *picked.shape[1:]).float()


def _attributes(event: WorldEvent) -> tuple[str, str, str]:
    item = event.objects[0]
    return item.colour, item.shape, item.direction


def label_index(background: str, colour: str, shape: str, direction: str) -> int:
    """Row of the bank that holds the event."""
    index = 0
    for words, word in ((BACKGROUNDS, background), (COLOURS, colour), (SHAPES, shape), (DIRECTIONS, direction)):
        index = index * len(words) + words.index(word)
    return index


def full_layout(tokens_BTPW: Tensor, seconds_per_grid: Tensor, *, pool: int = 1) -> list[LaidOutVideo]:
    """Every token at its time; with ``pool > 1`` runs of so many grids are averaged first.

    Args:
        tokens_BTPW: Features of B videos.
        seconds_per_grid: ``[B]``.
        pool: Grids that are averaged.
    """
    batch, grids, cells, width = tokens_BTPW.shape
    pooled = tokens_BTPW.view(batch, grids // pool, pool, cells, width).mean(2)
    middles = torch.arange(grids // pool) * pool + (pool - 1) / 2
    side = isqrt(cells)
    places = torch.arange(side)
    return [
        LaidOutVideo(
            tokens_TPW.flatten(0, 1),
            ((side, side),) * len(middles),
            tuple((middles * seconds).tolist()),
            float(seconds),
            torch.cartesian_prod((middles * seconds * TIME_RATE).long(), places, places),
        )
        for tokens_TPW, seconds in zip(pooled, seconds_per_grid, strict=True)
    ]


def blank_layout(videos: int, width: int) -> list[LaidOutVideo]:
    """One empty token for each video: nothing but the question is left to answer from."""
    nothing = LaidOutVideo(torch.zeros(1, width), ((1, 1),), (0.0,), 0.0, torch.zeros(1, 3, dtype=torch.long))
    return [nothing] * videos


def event_layout(
    tokens_BTPW: Tensor,
    segments: Sequence[Sequence[int]],
    seconds_per_grid: Tensor,
    rng: np.random.Generator,
    *,
    budget: int,
    even: bool = False,
) -> list[LaidOutVideo]:
    """One grid per segment, at the segment's mean time, pooled so that all of them fit the budget.

    The grids of a segment are averaged with random weights, so that any way of merging them is in distribution.

    Args:
        tokens_BTPW: Features of B videos of 2 x 2 cells.
        segments: Lengths in grids of each video's segments.
        seconds_per_grid: ``[B]``.
        rng: Draws the weights and how each video's share is spent.
        budget: Most visual tokens of a video.
        even: Spread the times evenly over the video instead.
    """
    videos = []
    for tokens_TPW, lengths, seconds in zip(tokens_BTPW, segments, seconds_per_grid.tolist(), strict=True):
        times = [middle * seconds for middle in _middles(lengths, even=even)]
        videos.append(_one_grid_per_segment(tokens_TPW, lengths, times, seconds, rng, budget))
    return videos


def _middles(lengths: Sequence[int], *, even: bool) -> list[float]:
    """Of segments, in grids."""
    if even:
        return [(index + 0.5) * sum(lengths) / len(lengths) - 0.5 for index in range(len(lengths))]
    starts = accumulate(lengths, initial=0)
    return [start + (length - 1) / 2 for start, length in zip(starts, lengths, strict=False)]


def _one_grid_per_segment(
    tokens_TPW: Tensor, lengths: Sequence[int], times: list[float], pace: float, rng: np.random.Generator, budget: int
) -> LaidOutVideo:
    assert tokens_TPW.shape[1] == 4 and sum(lengths) == len(tokens_TPW)
    left = budget - len(lengths)
    features, positions, cells = [], [], []
    for grids_LPW, time in zip(tokens_TPW.split(list(lengths)), times, strict=True):
        weights = rng.exponential(size=len(grids_LPW)) ** rng.choice((0.0, 1.0, 2.0)) + 1e-3
        merged = torch.tensor(weights / weights.sum(), dtype=torch.float32) @ grids_LPW.flatten(1)
        sizes = [(1, 1)] + [(1, 2), (2, 1)] * (left >= 1) + [(2, 2)] * 3 * (left >= 3)
        height, width = sizes[rng.integers(len(sizes))]
        left -= height * width - 1
        pooled = merged.view(2, 2, -1)
        if height == 1:
            pooled = pooled.mean(0, keepdim=True)
        if width == 1:
            pooled = pooled.mean(1, keepdim=True)
        features.append(pooled.flatten(0, 1))
        cells.append((height, width))
        rows, columns = ((0, 1) if side == 2 else (1,) for side in (height, width))
        positions += [(int(time * TIME_RATE), row, column) for row in rows for column in columns]
    return LaidOutVideo(torch.cat(features), tuple(cells), tuple(times), pace, torch.tensor(positions))
