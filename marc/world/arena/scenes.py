"""What happens in a video of the level ``arena``: 2 to 40 scenes of 1 to 60 seconds, with details of a single cell.

A frame has 8 x 16 cells of 14 pixels, each a visual token. A scene is a place (a tint and a pattern, which every cell
shows), one to three actors of a cell that move through it, and *marks*, which stay in one cell for one or two temporal
grids: a sign with a letter and a digit, a star, buttons. In some scenes a button turns on the light: it is pressed in
the grid in which the scene becomes bright. Empty plates, other buttons and actors that nobody asks about distract.

No pixels here (`marc.world.arena.renderer`) and no questions (`marc.world.arena.questions`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from marc.world.scenes import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    SHAPES,
    STEPS,
    MovingObject,
    Split,
    WorldVideo,
    split_length,
    video_rng,
)

CELL = 14
"""Pixels of a cell in height and width."""
SPEED = 7
"""Pixels that an actor moves per frame: a cell in a temporal grid."""
TINTS = ("maroon", "olive", "navy", "teal", "grey", "plum")
LETTERS = "ACEFHKLPTX"
DIGITS = "0123456789"
MOST_GRIDS, LONGEST = 64, 60
EVENTS = ((0.60, 2, 4), (0.25, 5, 8), (0.10, 9, 16), (0.05, 17, 40))
"""How often a video has so many events, from and to."""
MOST_ACTORS = 3
GRADUAL = 4
"""Grids of both scenes, at least, at a gradual cut; it takes the last of one and the first of the other."""

Transition = Literal["cut", "dissolve", "fade"]
MarkKind = Literal["sign", "star", "button", "plate"]


@dataclass(frozen=True)
class Mark:
    """Something that stays in one cell of the picture, whatever the camera does.

    Attributes:
        kind: A sign, a star, a button, or an empty plate.
        value: What a sign says, the colour of a star or button, nothing of a plate.
        row: Its cell.
        column: Its cell.
        first: Grid of its event in which it appears.
        grids: For how many.
    """

    kind: MarkKind
    value: str
    row: int
    column: int
    first: int
    grids: int

    @property
    def shown(self) -> range:
        """Grids of its event in which it is seen."""
        return range(self.first, self.first + self.grids)


@dataclass(frozen=True)
class Sighting:
    """Something that is seen in a grid of a video, and the cell in which most of it is."""

    thing: Mark | MovingObject
    grid: int
    row: int
    column: int


@dataclass(frozen=True)
class ArenaEvent:
    """One scene between two cuts.

    Attributes:
        tint: A word of `TINTS`.
        pattern: A word of `marc.world.scenes.BACKGROUNDS`.
        grids: Length in temporal grids of two frames.
        actors: Of different colours and shapes; their places are those of their centres in the first frame, in pixels.
        marks: No two in one cell.
        switch: Grid between whose frames the light goes on, or ``None``.
        shade: Factor on the tint's red, green and blue.
        phase: Row and column by which the pattern is shifted, in pixels.
        camera: Row and column steps of the camera in pixels per frame.
    """

    tint: str
    pattern: str
    grids: int
    actors: tuple[MovingObject, ...]
    marks: tuple[Mark, ...]
    switch: int | None
    shade: tuple[float, float, float]
    phase: tuple[int, int]
    camera: tuple[int, int]

    @property
    def background(self) -> str:
        """What the scene is called, such as ``teal striped``; no other scene of the video is."""
        return f"{self.tint} {self.pattern}"

    def marks_of(self, kind: MarkKind) -> list[Mark]:
        """Its marks of one kind."""
        return [mark for mark in self.marks if mark.kind == kind]

    @property
    def cause(self) -> Mark | None:
        """The button that turns on the light."""
        return next((mark for mark in self.marks_of("button") if mark.first == self.switch), None)

    def centre(self, actor: MovingObject, frame: int, size: tuple[int, int]) -> tuple[int, int]:
        """Where an actor's centre is in a frame of the event, on a torus of a size in pixels."""
        steps = zip(STEPS[actor.direction], self.camera, strict=True)
        starts = zip((actor.row, actor.column), steps, size, strict=True)
        row, column = ((start + frame * (SPEED * step - camera)) % side for start, (step, camera), side in starts)
        return row, column


@dataclass(frozen=True)
class ArenaVideo:
    """A whole video.

    Attributes:
        name: Unique and stable, such as ``arena-test-0-000012``.
        events: In time order; no two are called the same.
        transitions: Between neighbours.
        rows: Cells of a frame's height.
        columns: Cells of its width.
        level: Always ``"arena"``.
    """

    name: str
    events: tuple[ArenaEvent, ...]
    transitions: tuple[Transition, ...]
    rows: int = 8
    columns: int = 16
    level: Literal["arena"] = "arena"

    @property
    def frame_count(self) -> int:
        """Number of world frames."""
        return 2 * sum(event.grids for event in self.events)

    @property
    def event_of_frame(self) -> list[int]:
        """Index of the event that each world frame belongs to."""
        return [index for index, event in enumerate(self.events) for _ in range(2 * event.grids)]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rows * CELL, self.columns * CELL

    def first_grid(self, index: int) -> int:
        """Grid of the video with which an event begins."""
        return sum(event.grids for event in self.events[:index])

    def clear_grids(self, index: int) -> range:
        """Grids of an event, counted from its beginning, that no gradual cut mixes with another scene."""
        around = ("cut", *self.transitions, "cut")
        return range(int(around[index] != "cut"), self.events[index].grids - int(around[index + 1] != "cut"))

    def sightings(self, index: int) -> Iterator[Sighting]:
        """What can be seen of an event in its clear grids; nothing that something else covers."""
        event, begin = self.events[index], self.first_grid(index)
        for grid in self.clear_grids(index):
            seen: dict[tuple[int, int], Mark | MovingObject] = {}
            for actor in event.actors:
                row, column = event.centre(actor, 2 * grid, self.size)
                later = event.centre(actor, 2 * grid + 1, self.size)
                seen[row // CELL, column // CELL] = actor
                seen.setdefault((later[0] // CELL, later[1] // CELL), actor)
            seen |= {(mark.row, mark.column): mark for mark in event.marks if grid in mark.shown}
            for (row, column), thing in seen.items():
                yield Sighting(thing, begin + grid, row, column)


@dataclass(frozen=True)
class ArenaLimits:
    """A smaller world, for a curriculum.

    Attributes:
        events: Most events.
        grids: Most temporal grids of a video.
        rows: Cells of a frame's height.
        columns: Cells of its width.
    """

    events: int = 40
    grids: int = MOST_GRIDS
    rows: int = 8
    columns: int = 16


def sample_arena(split: Split, seed: int, index: int, limits: ArenaLimits = ArenaLimits()) -> ArenaVideo:
    """Draw video number `index` of a split: the same arguments give the same video on every machine.

    Args:
        split: Which split.
        seed: Seed of the whole set.
        index: Number of the video in it.
        limits: Of a smaller world.
    """
    rng = video_rng("arena", split, seed, index)
    count = _event_count(rng, limits)
    longest = min(limits.grids, count + LONGEST - 1)
    total = count + round(np.exp(rng.uniform(0, np.log(longest - count + 1)))) if longest > count else count
    lengths = split_length(rng, min(total, longest), count, 1)
    names = [(tint, pattern) for tint in TINTS for pattern in BACKGROUNDS]
    places = [names[i] for i in rng.permutation(len(names))[:count]]
    transitions = tuple(_transition(rng, *pair) for pair in pairwise(lengths))
    empty = tuple(_empty_event(rng, place, grids) for place, grids in zip(places, lengths, strict=True))
    video = ArenaVideo(f"arena-{split}-{seed}-{index:06d}", empty, transitions, limits.rows, limits.columns)
    events = tuple(_peopled(rng, video, index) for index in range(count))
    return replace(video, events=events)


def _event_count(rng: np.random.Generator, limits: ArenaLimits) -> int:
    _, least, most = EVENTS[rng.choice(len(EVENTS), p=[share for share, _, _ in EVENTS])]
    return min(int(rng.integers(least, most + 1)), limits.events, limits.grids)


def _transition(rng: np.random.Generator, before: int, after: int) -> Transition:
    joins: tuple[Transition, ...] = ("cut", "cut", "dissolve", "fade")
    drawn = joins[rng.integers(len(joins))]
    return drawn if min(before, after) >= GRADUAL else "cut"


def _empty_event(rng: np.random.Generator, place: tuple[str, str], grids: int) -> ArenaEvent:
    shade = rng.uniform(0.93, 1.07, 3)
    moves = rng.random() < 0.5
    camera = rng.integers(-2, 3, 2) * moves
    return ArenaEvent(
        tint=place[0],
        pattern=place[1],
        grids=grids,
        actors=(),
        marks=(),
        switch=None,
        shade=(float(shade[0]), float(shade[1]), float(shade[2])),
        phase=(int(rng.integers(2 * CELL)), int(rng.integers(2 * CELL))),
        camera=(int(camera[0]), int(camera[1])),
    )


def _peopled(rng: np.random.Generator, video: ArenaVideo, index: int) -> ArenaEvent:
    """An event with its actors and marks."""
    event, clear = video.events[index], video.clear_grids(index)
    cells = iter(rng.permutation(video.rows * video.columns).tolist())
    count = int(rng.integers(1, MOST_ACTORS + 1))
    actors = tuple(
        _actor(rng, colour, shape, divmod(next(cells), video.columns))
        for colour, shape in zip(_some(rng, COLOURS, count), _some(rng, SHAPES, count), strict=True)
    )
    drawn: list[tuple[MarkKind, str, range]] = []
    if rng.random() < 0.75:
        drawn.append(("sign", LETTERS[rng.integers(len(LETTERS))] + DIGITS[rng.integers(len(DIGITS))], clear))
    if rng.random() < 0.65:
        drawn.append(("star", COLOURS[rng.integers(len(COLOURS))], clear))
    drawn += [("plate", "", clear)] * int(rng.integers(3))
    buttons = _some(rng, COLOURS, int(rng.integers(2, 4)))
    switch = int(rng.integers(clear.start + 1, clear.stop - 1)) if len(clear) >= 3 and rng.random() < 0.75 else None
    marks = [_mark(rng, *each, divmod(next(cells), video.columns)) for each in drawn]
    if switch is not None:
        row, column = divmod(next(cells), video.columns)
        marks.append(Mark("button", buttons.pop(), row, column, switch, 1))
    for colour in buttons if len(clear) >= 3 else ():
        spans = [range(clear.start, clear.stop)] if switch is None else [range(clear.start, switch)]
        spans += [] if switch is None else [range(switch + 1, clear.stop)]
        span = spans[rng.integers(len(spans))]
        marks.append(_mark(rng, "button", colour, span, divmod(next(cells), video.columns)))
    return replace(event, actors=actors, marks=tuple(marks), switch=switch)


def _some(rng: np.random.Generator, words: Sequence[str], count: int) -> list[str]:
    return [str(word) for word in rng.permutation(words)[:count]]


def _actor(rng: np.random.Generator, colour: str, shape: str, cell: tuple[int, int]) -> MovingObject:
    row, column = (place * CELL + CELL // 2 for place in cell)
    return MovingObject(colour, shape, DIRECTIONS[rng.integers(len(DIRECTIONS))], row, column)


def _mark(rng: np.random.Generator, kind: MarkKind, value: str, within: range, cell: tuple[int, int]) -> Mark:
    """A mark that is seen in one or two of some grids."""
    grids = min(int(rng.integers(1, 3)), len(within))
    first = int(rng.integers(within.start, within.stop - grids + 1))
    return Mark(kind, value, cell[0], cell[1], first, grids)


AnyVideo = WorldVideo | ArenaVideo
