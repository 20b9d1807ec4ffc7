"""What happens in a video of the micro-world: its vocabulary, its records and how they are drawn from a seed.

A video is a sequence of *events* (scenes), each a background with one or more objects that move on a torus at constant
speed. One temporal grid is two frames, as in Qwen2.5-VL; events begin and end on whole grids. No pixels here
(`marc.world.renderer`) and no words beyond the vocabulary (`marc.world.questions`). Only numpy is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

from marc.io import sha256_of

BACKGROUNDS = ("plain", "striped", "checkered", "dotted", "diagonal", "tiled", "zigzag", "ringed")
COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
SHAPES = ("circle", "square", "triangle", "cross")
DIRECTIONS = ("left", "right", "up", "down")
STEPS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}

SIZE = 28
"""Width and height of a world frame in pixels."""
SPEED = 2
"""Pixels per frame that an object moves."""

Level = Literal["easy", "hard", "arena"]
"""``arena`` is drawn by `marc.world.arena.scenes`; `marc.world.levels` draws all three."""
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class MovingObject:
    """One object: what it is, where its centre starts (pixels) and where it goes."""

    colour: str
    shape: str
    direction: str
    row: int
    column: int

    @property
    def name(self) -> str:
        """Noun phrase without an article, such as ``red circle``."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class WorldEvent:
    """One scene between two cuts.

    Attributes:
        background: A word of `BACKGROUNDS`.
        objects: The moving objects, one at level ``easy``.
        grids: Length in temporal grids of two frames.
        dark: RGB of the background's dark part, in [0, 1].
        light: RGB of its light part.
        phase: Row and column by which the background's pattern is shifted, in pixels.
        camera: Row and column steps of the camera in pixels per frame; (0, 0) stands still.
    """

    background: str
    objects: tuple[MovingObject, ...]
    grids: int
    dark: tuple[float, float, float]
    light: tuple[float, float, float]
    phase: tuple[int, int]
    camera: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class WorldVideo:
    """A whole video.

    Attributes:
        name: Unique and stable, such as ``easy-test-0-000012``.
        level: ``"easy"`` or ``"hard"``.
        events: In time order; their backgrounds differ.
        dissolve: Frames over which two neighbouring events are mixed; 0 is a hard cut.
    """

    name: str
    level: Level
    events: tuple[WorldEvent, ...]
    dissolve: int = 0

    @property
    def frame_count(self) -> int:
        """Number of world frames."""
        return 2 * sum(event.grids for event in self.events)

    @property
    def event_of_frame(self) -> list[int]:
        """Index of the event that each world frame belongs to."""
        return [index for index, event in enumerate(self.events) for _ in range(2 * event.grids)]


@dataclass(frozen=True)
class LevelSettings:
    """The ranges that a level draws from."""

    backgrounds: tuple[str, ...]
    grids: int
    min_events: int
    max_events: int
    max_objects: int
    min_grids: int
    dissolves: bool
    camera: bool


LEVELS: dict[str, LevelSettings] = {
    "easy": LevelSettings(
        backgrounds=BACKGROUNDS[:6],
        grids=32,
        min_events=1,
        max_events=4,
        max_objects=1,
        min_grids=4,
        dissolves=False,
        camera=False,
    ),
    "hard": LevelSettings(
        backgrounds=BACKGROUNDS,
        grids=64,
        min_events=3,
        max_events=8,
        max_objects=3,
        min_grids=6,
        dissolves=True,
        camera=True,
    ),
}


@dataclass(frozen=True)
class Palette:
    """The words that one video draws its objects from."""

    colours: tuple[str, ...]
    shapes: tuple[str, ...]
    directions: tuple[str, ...]


def video_rng(level: str, split: str, seed: int, index: int) -> np.random.Generator:
    """The generator that belongs to one video, independent of every other video's and of the process."""
    if level not in get_args(Level):
        raise ValueError(f"level must be one of {', '.join(get_args(Level))}, got {level!r}")
    if split not in ("train", "validation", "test"):
        raise ValueError(f"split must be train, validation or test, got {split!r}")
    digest = sha256_of(f"marc-world/1/{level}/{split}/{seed}/{index}")
    return np.random.default_rng(list(bytes.fromhex(digest)))


def sample_video(level: Level, split: Split, seed: int, index: int, *, max_events: int | None = None) -> WorldVideo:
    """Draw video number `index` of a split: the same arguments give the same video on every machine.

    Args:
        level: Key of `LEVELS`.
        split: Which split.
        seed: Seed of the whole set.
        index: Number of the video in it.
        max_events: Fewer events than the level has, for a curriculum.
    """
    rng = video_rng(level, split, seed, index)
    settings = LEVELS[level]
    most = settings.max_events if max_events is None else min(max_events, settings.max_events)
    count = int(rng.integers(settings.min_events, most + 1))
    lengths = split_length(rng, settings.grids, count, settings.min_grids)
    backgrounds = rng.permutation(settings.backgrounds)[:count]
    palette = Palette(*(tuple(some_of(rng, words)) for words in (COLOURS, SHAPES, DIRECTIONS)))
    events = tuple(
        sample_event(rng, settings, palette, str(background), grids)
        for background, grids in zip(backgrounds, lengths, strict=True)
    )
    dissolve = int(rng.choice((0, 2, 4))) if settings.dissolves else 0
    return WorldVideo(f"{level}-{split}-{seed}-{index:06d}", level, events, dissolve)


def some_of(rng: np.random.Generator, words: Sequence[str]) -> list[str]:
    """Two or more of the words: few of them make a video whose events resemble each other."""
    return [str(word) for word in rng.permutation(words)[: rng.integers(2, len(words) + 1)]]


def split_length(rng: np.random.Generator, total: int, parts: int, shortest: int) -> list[int]:
    """Cut `total` into `parts` integers of at least `shortest`, uniformly over all ways of doing it."""
    if parts * shortest > total:
        raise ValueError(f"{parts} parts of at least {shortest} do not fit into {total}")
    slack = total - parts * shortest
    bars = np.sort(rng.choice(slack + parts - 1, parts - 1, replace=False))
    edges = np.concatenate(([-1], bars, [slack + parts - 1]))
    return [int(shortest + right - left - 1) for left, right in pairwise(edges)]


def sample_event(
    rng: np.random.Generator, settings: LevelSettings, palette: Palette, background: str, grids: int
) -> WorldEvent:
    """Draw the objects, all different, and the look of one event with the given background."""
    names = [(colour, shape) for colour in palette.colours for shape in palette.shapes]
    count = int(rng.integers(1, settings.max_objects + 1))
    objects = tuple(
        MovingObject(
            colour=names[index][0],
            shape=names[index][1],
            direction=palette.directions[rng.integers(len(palette.directions))],
            row=int(rng.integers(SIZE)),
            column=int(rng.integers(SIZE)),
        )
        for index in rng.permutation(len(names))[:count]
    )
    tint = rng.uniform(0.75, 1.0, 3)
    dark, light = rng.uniform(0.08, 0.22) * tint, rng.uniform(0.40, 0.55) * tint
    camera = tuple(int(step) for step in rng.integers(-1, 2, 2)) if settings.camera else (0, 0)
    return WorldEvent(
        background=background,
        objects=objects,
        grids=grids,
        dark=(float(dark[0]), float(dark[1]), float(dark[2])),
        light=(float(light[0]), float(light[1]), float(light[2])),
        phase=(int(rng.integers(SIZE)), int(rng.integers(SIZE))),
        camera=(camera[0], camera[1]),
    )
