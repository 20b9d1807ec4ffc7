"""Features of the frozen tower for every kind of easy event, and new videos put together from them without it.

At `SPEED` pixels a frame an object is back where it was after `CYCLE` grids, so one clip of so many grids stands for
an event of any length. A video is the concatenation of such clips; then its tokens are laid out as the model will read
them: all of them (``full``), pooled over time (``pooled``), or one small frame per event at its time (``events``).

Shapes: L labels, V variants, B videos, T temporal grids, P merged tokens of a grid, D features, N visual tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from experiments.tiny_model.tower import KINDS, draw_pairs, grids_to_patches, through_a_codec
from marc.model.qwen2_5_vl.vision import encode_grids
from marc.world.scenes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, SIZE, SPEED, STEPS, WorldEvent, WorldVideo

CYCLE = SIZE // (2 * SPEED)
"""Grids after which a clip repeats."""


@dataclass(frozen=True)
class VisualTokens:
    """The visual tokens of B videos as the language model reads them, padded on the left.

    Attributes:
        features: ``[B, N, D]``.
        positions: Time in position units, row and column relative to the video's first position, ``int64 [B, N, 3]``.
        valid: False where it is padding, ``bool [B, N]``.
    """

    features: Tensor
    positions: Tensor
    valid: Tensor


class FeatureBank:
    """Tower features of `variants` clips of every label, ``[L, V, CYCLE + 1, P, D]``; the last grid stands still."""

    def __init__(self, features: Tensor) -> None:
        self.features = features

    @classmethod
    @torch.no_grad()
    def build(cls, tower: PreTrainedModel, *, variants: int, seed: int) -> FeatureBank:
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
                clip.append(encode_grids(tower, grids_to_patches(through_a_codec(frames, generator))))
            bank.append(torch.stack(clip, dim=1))
        return cls(torch.stack(bank, dim=1).to(torch.bfloat16))

    def videos(self, videos: Sequence[WorldVideo], rng: np.random.Generator, *, still_rate: float = 0.0) -> Tensor:
        """Features of easy videos with clips drawn at random: ``[B, T, P, D]`` in float32.

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


def full_layout(tokens_BTPD: Tensor, seconds_per_grid: Tensor, *, pool: int = 1, rate: float = 2.0) -> VisualTokens:
    """Every token at its time; with ``pool > 1`` runs of so many grids are averaged first.

    Args:
        tokens_BTPD: Features of B videos.
        seconds_per_grid: ``[B]``.
        pool: Grids that are averaged.
        rate: Position units per second (``tokens_per_second`` of the model).
    """
    batch, grids, cells, width = tokens_BTPD.shape
    pooled = tokens_BTPD.view(batch, grids // pool, pool, cells, width).mean(2)
    time = (torch.arange(grids // pool) * pool + (pool - 1) / 2) * seconds_per_grid[:, None]
    return _lay_out(pooled, (time * rate).long(), int(cells**0.5), int(cells**0.5))


def blank_layout(videos: int, width: int) -> VisualTokens:
    """One empty token for each video: nothing but the question is left to answer from."""
    return VisualTokens(
        torch.zeros(videos, 1, width), torch.zeros(videos, 1, 3, dtype=torch.long), torch.ones(videos, 1) > 0
    )


def _lay_out(tokens_BTPD: Tensor, time_BT: Tensor, height: int, width: int) -> VisualTokens:
    batch, grids, cells, features = tokens_BTPD.shape
    row = torch.arange(height).repeat_interleave(width).expand(batch, grids, cells)
    column = torch.arange(width).repeat(height).expand(batch, grids, cells)
    positions = torch.stack((time_BT[..., None].expand(-1, -1, cells), row, column), dim=-1)
    valid = torch.ones(batch, grids * cells, dtype=torch.bool)
    return VisualTokens(tokens_BTPD.reshape(batch, -1, features), positions.reshape(batch, -1, 3), valid)


def event_layout(
    tokens_BTPD: Tensor,
    segments: Sequence[Sequence[int]],
    seconds_per_grid: Tensor,
    rng: np.random.Generator,
    *,
    budget: int,
    even: bool = False,
    rate: float = 2.0,
) -> VisualTokens:
    """One frame per segment, at the segment's mean time, pooled so that all of them fit the budget.

    The grids of a segment are averaged with random weights, so that any way of merging them is in distribution.

    Args:
        tokens_BTPD: Features of B videos of 2 x 2 cells.
        segments: Lengths in grids of each video's segments.
        seconds_per_grid: ``[B]``.
        rng: Draws the weights and how each video's share is spent.
        budget: Most visual tokens of a video.
        even: Spread the times evenly over the video instead.
        rate: Position units per second.
    """
    videos = []
    for tokens_TPD, lengths, scale in zip(tokens_BTPD, segments, seconds_per_grid.tolist(), strict=True):
        videos.append(_event_tokens(tokens_TPD, lengths, scale * rate, rng, budget, even))
    longest = max(len(features) for features, _ in videos)
    pad = [longest - len(features) for features, _ in videos]
    return VisualTokens(
        torch.stack([F.pad(features, (0, 0, n, 0)) for (features, _), n in zip(videos, pad, strict=True)]),
        torch.stack([F.pad(positions, (0, 0, n, 0)) for (_, positions), n in zip(videos, pad, strict=True)]),
        torch.arange(longest) >= torch.tensor(pad)[:, None],
    )


def _event_tokens(
    tokens_TPD: Tensor, lengths: Sequence[int], units: float, rng: np.random.Generator, budget: int, even: bool
) -> tuple[Tensor, Tensor]:
    """Features ``[N, D]`` and positions ``[N, 3]`` of one video."""
    assert tokens_TPD.shape[1] == 4 and sum(lengths) == len(tokens_TPD)
    left = budget - len(lengths)
    features, positions = [], []
    starts = np.cumsum([0, *lengths])[:-1]
    for index, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        weights = rng.exponential(size=length) ** rng.choice((0.0, 1.0, 2.0)) + 1e-3
        merged = torch.tensor(weights / weights.sum(), dtype=torch.float32) @ tokens_TPD[
            start : start + length
        ].flatten(1)
        sizes = [(1, 1)] + [(1, 2), (2, 1)] * (left >= 1) + [(2, 2)] * 3 * (left >= 3)
        height, width = sizes[rng.integers(len(sizes))]
        left -= height * width - 1
        cells = merged.view(2, 2, -1)
        if height == 1:
            cells = cells.mean(0, keepdim=True)
        if width == 1:
            cells = cells.mean(1, keepdim=True)
        features.append(cells.flatten(0, 1))
        middle = (index + 0.5) * len(tokens_TPD) / len(lengths) - 0.5 if even else start + (length - 1) / 2
        time = int(middle * units)
        rows, columns = ((0, 1) if side == 2 else (1,) for side in (height, width))
        positions += [(time, row, column) for row in rows for column in columns]
    return torch.cat(features), torch.tensor(positions)
