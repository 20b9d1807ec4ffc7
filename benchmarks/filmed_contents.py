"""Generated pictures at full size of what people film: an edited film, a lecture, a watched place, a walk.

The pictures of `benchmarks.synthetic_cuts` are small; enlarged they have no detail of their own, and an encoder spends
its bytes on noise. Here a scene is drawn at its full size (occluding discs of all radii with 1/f texture, as there)
and a camera crops it, so that key pictures cost what those of films do in relation to the pictures between them.

* ``edited``: a cut every ten seconds; in every shot the camera stands or pans slowly and things move;
* ``lecture``: a page of text that stays for a minute, then another; now and then a few letters are added;
* ``watched``: a camera that stands, with a sensor's noise; every 40 seconds somebody walks through for four seconds;
* ``walk``: a camera that is carried: it pans, sways and shakes all the time.

Shape legend: T frames, H height, W width, C = 3 colours (RGB).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

FPS = 25
SHOT_SECONDS, PAGE_SECONDS, LETTERS_SECONDS = 10, 60, 25
WALKER_EVERY, WALKER_SECONDS = 40, 4
_MARGIN = 0.5  # of the picture's sides by which a scene is larger than the picture
_DISCS = 500

Picture = NDArray[np.uint8]


def frames_of(content: str, width: int, height: int, seconds: int, *, seed: int = 0) -> Iterator[Picture]:
    """The pictures ``uint8 [H, W, 3]`` of a content at 25 a second; the same arguments give the same.

    Args:
        content: One of `CONTENTS`.
        width: In pixels.
        height: In pixels.
        seconds: How long.
        seed: Of everything random.

    Raises:
        ValueError: For an unknown content.
    """
    if content not in CONTENTS:
        raise ValueError(f"unknown content {content!r}; choose one of {', '.join(CONTENTS)}")
    rng = np.random.default_rng([list(CONTENTS).index(content), seed])
    return CONTENTS[content](rng, width, height, seconds * FPS)


def _edited(rng: np.random.Generator, width: int, height: int, count: int) -> Iterator[Picture]:
    for _ in range(0, count, SHOT_SECONDS * FPS):
        scene, step = _scene(rng, width, height), rng.choice([0.0, 0.0, 0.25, 1.0]) * height / 480
        angle, film = rng.uniform(0, 2 * np.pi), _Film(rng, width, height, noise=1.0)
        things = [_Thing(rng, width, height) for _ in range(3)]
        for frame in range(min(SHOT_SECONDS * FPS, count)):
            picture = _crop(scene, width, height, frame * step * np.cos(angle), frame * step * np.sin(angle))
            for thing in things:
                thing.draw(picture)
            yield film.grained(picture)


def _walk(rng: np.random.Generator, width: int, height: int, count: int) -> Iterator[Picture]:
    scene, film = _scene(rng, width, height), _Film(rng, width, height, noise=1.0)
    x, y, shake = 0.0, 0.0, height / 200
    for frame in range(count):
        x += height / 120 * np.cos(frame / 40)
        y += height / 200 * np.sin(frame / 23)
        yield film.grained(_crop(scene, width, height, x + rng.normal(0, shake), y + rng.normal(0, shake)))


def _watched(rng: np.random.Generator, width: int, height: int, count: int) -> Iterator[Picture]:
    scene, film = _scene(rng, width, height), _Film(rng, width, height, noise=2.0)
    thing = _Thing(rng, width, height)
    for frame in range(count):
        picture = _crop(scene, width, height, 0, 0)
        if frame % (WALKER_EVERY * FPS) >= (WALKER_EVERY - WALKER_SECONDS) * FPS:
            thing.draw(picture)
        yield film.grained(picture)


def _lecture(rng: np.random.Generator, width: int, height: int, count: int) -> Iterator[Picture]:
    page = _page(rng, width, height)
    for frame in range(count):
        if frame and frame % (PAGE_SECONDS * FPS) == 0:
            page = _page(rng, width, height)
        elif frame and frame % (LETTERS_SECONDS * FPS) == 0:
            _write(rng, page, lines=(int(rng.integers(3, 15)),))
        yield page


CONTENTS: dict[str, Callable[[np.random.Generator, int, int, int], Iterator[Picture]]] = {
    "edited": _edited,
    "lecture": _lecture,
    "watched": _watched,
    "walk": _walk,
}


def _scene(rng: np.random.Generator, width: int, height: int) -> Picture:
    """A drawn place, larger than the picture: what a camera crops."""
    rows, columns = int(height * (1 + 2 * _MARGIN)), int(width * (1 + 2 * _MARGIN))
    colours = np.clip(rng.uniform(40, 200, 3) + rng.normal(0, 40, (8, 1)) + rng.normal(0, 14, (8, 3)), 5, 250)
    scene = np.full((rows, columns, 3), colours[0], np.float32)
    for _ in range(_DISCS):
        radius = min(height / 40 * (rng.pareto(1.2) + 1), height / 3)
        cy, cx = rng.uniform(0, rows), rng.uniform(0, columns)
        top, left = max(int(cy - radius), 0), max(int(cx - radius), 0)
        box = slice(top, int(cy + radius) + 2), slice(left, int(cx + radius) + 2)
        y, x = np.ogrid[box[0].start : min(box[0].stop, rows), box[1].start : min(box[1].stop, columns)]
        scene[box][(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = colours[rng.integers(8)] + rng.normal(0, 12, 3)
    texture = _texture(rng, rows, columns) * rng.uniform(6, 14)
    return np.clip(scene + texture[..., None], 0, 255).astype(np.uint8)


def _texture(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float32]:
    """1/f noise of zero mean and unit deviation."""
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None])
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((rows, columns))) / frequency, s=(rows, columns))
    return (noise / noise.std()).astype(np.float32)


def _crop(scene: Picture, width: int, height: int, x: float, y: float) -> Picture:
    """What a camera sees that is moved by whole pixels from the middle; it turns back at the edges of the scene."""
    free_y, free_x = scene.shape[0] - height, scene.shape[1] - width
    top, left = _bounced(y + free_y / 2, free_y), _bounced(x + free_x / 2, free_x)
    return scene[top : top + height, left : left + width].copy()


def _bounced(place: float, free: int) -> int:
    there = round(place) % (2 * free)
    return min(there, 2 * free - there)


class _Thing:
    """A textured disc that crosses the picture again and again, as people and cars do."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        self._radius = int(rng.uniform(0.06, 0.15) * height)
        side = 2 * self._radius + 1
        self._texture = np.clip(rng.uniform(30, 220, 3) + 12 * _texture(rng, side, side)[..., None], 0, 255)
        y, x = np.ogrid[-self._radius : self._radius + 1, -self._radius : self._radius + 1]
        self._inside = y**2 + x**2 <= self._radius**2
        self._room = np.array([height, width]) + 2 * side
        self._place, self._velocity = rng.uniform((0, 0), self._room), rng.normal(0, height / 240, 2)

    def draw(self, picture: Picture) -> None:
        """Draw it, one step farther."""
        self._place = (self._place + self._velocity) % self._room
        top, left = self._place.astype(int) - len(self._inside)
        rows = slice(max(top, 0), max(top + len(self._inside), 0))
        columns = slice(max(left, 0), max(left + len(self._inside), 0))
        seen = picture[rows, columns]
        own = slice(rows.start - top, rows.start - top + seen.shape[0])
        own_columns = slice(columns.start - left, columns.start - left + seen.shape[1])
        inside = self._inside[own, own_columns]
        seen[inside] = self._texture[own, own_columns][inside]


class _Film:
    """The noise of a sensor, drawn once and shifted from picture to picture."""

    def __init__(self, rng: np.random.Generator, width: int, height: int, *, noise: float) -> None:
        self._rng, self._height = rng, height
        self._noise = np.rint(rng.normal(0, noise, (height + 64, width, 1))).astype(np.int16)

    def grained(self, picture: Picture) -> Picture:
        """The picture with the noise of another instant."""
        first = int(self._rng.integers(64))
        return np.clip(picture + self._noise[first : first + self._height], 0, 255).astype(np.uint8)


def _page(rng: np.random.Generator, width: int, height: int) -> Picture:
    page = np.full((height, width, 3), 240, np.uint8)
    _write(rng, page, lines=range(1, int(rng.integers(6, 14))))
    return page


def _write(rng: np.random.Generator, page: Picture, lines: range | tuple[int, ...]) -> None:
    """Lines of letters: random bits, as high as twentieths of the page."""
    size = max(page.shape[0] // 160, 1)
    for line in lines:
        for column in range(int(rng.integers(8, 50))):
            y, x = page.shape[0] * line // 18, page.shape[1] * (column + 3) // 60
            letter = np.kron(rng.integers(0, 2, (5, 4), dtype=np.uint8), np.ones((size, size), np.uint8))
            page[y : y + letter.shape[0], x : x + letter.shape[1]] = (240 - 210 * letter)[..., None]
