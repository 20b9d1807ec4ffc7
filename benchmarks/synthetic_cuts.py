"""Generated videos whose shot boundaries are known: the ground truth of `benchmarks.boundary_benchmark`.

Edited footage with frame-exact labels cannot be shipped, so scenes are made by hand-written rules that give what makes
boundaries hard in real footage: pictures with the edge statistics of natural ones (the dead-leaves model: occluding
discs with power-law radii, Lee, Mumford and Huang 2001), 1/f texture, objects that move on their own, camera motion,
light that drifts, sensor noise, and neighbouring shots that often share a colour palette, as shots of one place do.

Five kinds of video:

* ``hard``: shots joined by hard cuts;
* ``dissolve``: shots joined by linear cross-dissolves of 6 to 50 frames;
* ``fade``: shots joined by fades through black or white, 6 to 25 frames each way;
* ``flash``: one shot lit by flashes of 1 to 4 frames, no boundary at all;
* ``motion``: one shot with whip pans, shake, fast zooms and an object passing close to the lens, no boundary at all.

Shape legend: T frames, H height, W width, C = 3 colours (RGB).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

WIDTH, HEIGHT, FPS = 128, 72, 25.0
KINDS = ("hard", "dissolve", "fade", "flash", "motion")
_CANVAS = 256  # side of a scene's square canvas in pixels; the camera sees a window of it


@dataclass(frozen=True)
class LabelledVideo:
    """A generated video and its truth.

    Attributes:
        name: Kind and seed, such as ``"dissolve-3"``.
        kind: One of `KINDS`.
        rgb: ``uint8 [T, 72, 128, 3]`` at 25 frames per second.
        transitions: For every boundary the last frame that shows only the earlier shot and the first one that shows
            only the later: ``(i, i + 1)`` for a hard cut.
        disturbances: Number of flashes or fast movements that must not be taken for a boundary.
    """

    name: str
    kind: str
    rgb: NDArray[np.uint8]
    transitions: tuple[tuple[int, int], ...]
    disturbances: int


def make_video(kind: str, seed: int, *, shots: int = 8) -> LabelledVideo:
    """Renders one video of a kind; the same arguments give the same frames.

    Args:
        kind: One of `KINDS`.
        seed: Seed of everything random.
        shots: Number of shots (``hard``, ``dissolve``, ``fade``) or of disturbances (``flash``, ``motion``).

    Raises:
        ValueError: For an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of video {kind!r}; choose one of {', '.join(KINDS)}")
    rng = np.random.default_rng([KINDS.index(kind), seed])
    transitions: list[tuple[int, int]] = []
    if kind in _DISTURBED:
        frames = _DISTURBED[kind](rng, shots)
    else:
        frames, transitions = _joined_shots(rng, shots, _JOINS[kind])
    disturbances = shots if kind in _DISTURBED else 0
    return LabelledVideo(f"{kind}-{seed}", kind, _as_filmed(rng, frames), tuple(transitions), disturbances)


def make_shot(seed: int, length: int) -> NDArray[np.uint8]:
    """One ordinary shot ``uint8 [length, 72, 128, 3]``: slow camera, moving objects, drifting light, no boundary."""
    rng = np.random.default_rng(seed)
    return _as_filmed(rng, _shot(rng, length, _palette(rng)))


def _as_filmed(rng: np.random.Generator, frames: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Adds a sensor's noise to frames, in place, and rounds them to bytes."""
    frames += np.float32(rng.uniform(1, 4)) * rng.standard_normal(frames.shape, np.float32)
    return np.clip(frames, 0, 255, out=frames).astype(np.uint8)


# --- scenes ----------------------------------------------------------------------------------------------------------


def _pink_noise(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Noise ``[size, size]`` with a 1/f amplitude spectrum, zero mean, unit deviation."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(size, size))) / frequency
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return (noise / noise.std()).astype(np.float32)


def _palette(rng: np.random.Generator) -> NDArray[np.float32]:
    """Eight related colours ``[8, 3]`` of one place in one light: muted, differing in brightness more than in hue."""
    base = rng.uniform(50, 190) + rng.normal(0, 22, 3)
    spread = rng.normal(0, 40, (8, 1)) + rng.normal(0, 14, (8, 3))
    return np.clip(base + spread, 5, 250).astype(np.float32)


def _canvas(rng: np.random.Generator, palette: NDArray[np.float32]) -> NDArray[np.float32]:
    """A dead-leaves picture ``[S, S, 3]`` with 1/f texture, in the colours of ``palette``."""
    size = _CANVAS
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = palette[0]
    y, x = np.mgrid[:size, :size].astype(np.float32)
    for _ in range(400):
        radius = min(3 * rng.pareto(1.2) + 3, 60)
        cy, cx = rng.uniform(0, size, 2)
        stretch = rng.uniform(0.5, 2)
        top, bottom = max(int(cy - radius / stretch), 0), int(cy + radius / stretch) + 2
        left, right = max(int(cx - radius), 0), int(cx + radius) + 2
        box = slice(top, bottom), slice(left, right)
        leaf = ((y[box] - cy) * stretch) ** 2 + (x[box] - cx) ** 2 < radius**2
        picture[box][leaf] = palette[rng.integers(8)] + rng.normal(0, 10)
    texture = _pink_noise(rng, size)[..., None] * rng.uniform(6, 18)
    return picture + texture


def _sample(canvas: NDArray[np.float32], x_T: NDArray, y_T: NDArray, zoom_T: NDArray) -> NDArray[np.float32]:
    """Frames ``[T, H, W, 3]`` seen by a camera at (x, y) in [-1, 1] canvas units with a zoom (1 = 1 pixel a pixel)."""
    row_H, column_W = np.linspace(-1, 1, HEIGHT), np.linspace(-1, 1, WIDTH)
    half_height, half_width = HEIGHT / _CANVAS / zoom_T, WIDTH / _CANVAS / zoom_T
    grid_THW2 = np.empty((len(x_T), HEIGHT, WIDTH, 2), np.float32)
    grid_THW2[..., 0] = x_T[:, None, None] + half_width[:, None, None] * column_W[None, None, :]
    grid_THW2[..., 1] = y_T[:, None, None] + half_height[:, None, None] * row_H[None, :, None]
    picture = torch.from_numpy(canvas).permute(2, 0, 1)[None].expand(len(x_T), -1, -1, -1)
    seen = F.grid_sample(picture, torch.from_numpy(grid_THW2), padding_mode="reflection", align_corners=False)
    return seen.permute(0, 2, 3, 1).numpy()


def _walk(rng: np.random.Generator, length: int, speed: float) -> NDArray[np.float64]:
    """A smooth path ``[length]``: constant drift plus slow wandering, ``speed`` in canvas units per frame."""
    wandering = np.cumsum(rng.normal(0, 1, length + 24))
    smooth = np.convolve(wandering, np.ones(25) / 25, "valid")
    return rng.uniform(-0.4, 0.4) + speed * (rng.uniform(-1, 1) * np.arange(length) + 0.5 * (smooth - smooth[0]))


def _add_objects(rng: np.random.Generator, frames: NDArray[np.float32], palette: NDArray[np.float32]) -> None:
    """Draws one to three textured discs that cross the frames ``[T, H, W, 3]`` in place, as people or cars do."""
    for _ in range(rng.integers(1, 4)):
        radius = int(rng.integers(5, 18))
        y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
        inside = y**2 + x**2 < radius**2
        texture = _pink_noise(rng, 64)[: 2 * radius + 1, : 2 * radius + 1, None] * 15
        picture = palette[rng.integers(8)] + rng.normal(0, 25) + texture
        room = np.array([HEIGHT + 2 * radius, WIDTH + 2 * radius])  # it leaves the picture before it comes back
        position, velocity = rng.uniform((0, 0), room), rng.normal(0, 0.8, 2)
        for frame in frames:
            position = (position + velocity) % room
            rows, columns = y + int(position[0]) - radius, x + int(position[1]) - radius
            seen = inside & (rows >= 0) & (rows < HEIGHT) & (columns >= 0) & (columns < WIDTH)
            frame[rows[seen], columns[seen]] = picture[seen]


def _shot(rng: np.random.Generator, length: int, palette: NDArray[np.float32]) -> NDArray[np.float32]:
    """An ordinary shot ``[T, H, W, 3]``: slow camera, moving objects, drifting light."""
    speed = rng.choice([0.0, 0.001, 0.004])
    zoom_T = rng.uniform(0.8, 1.6) * np.exp(rng.choice([0, 0, 0.004]) * rng.uniform(-1, 1) * np.arange(length))
    frames = _sample(_canvas(rng, palette), _walk(rng, length, speed), _walk(rng, length, speed), zoom_T)
    _add_objects(rng, frames, palette)
    light_T = rng.uniform(0.7, 1.2) * (1 + 0.08 * np.sin(np.arange(length) * rng.uniform(0, 0.05)))
    frames *= _ramp(light_T)
    return frames


# --- joins -----------------------------------------------------------------------------------------------------------

_Join = Callable[[np.random.Generator, NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
_SPARE = 60  # frames at either end of a shot that a join may use up


def _cut(rng: np.random.Generator, tail: NDArray[np.float32], head: NDArray[np.float32]) -> NDArray[np.float32]:
    """Nothing between two shots; the rest of both ends is not shown."""
    return tail[:0]


def _dissolve(rng: np.random.Generator, tail: NDArray[np.float32], head: NDArray[np.float32]) -> NDArray[np.float32]:
    """The end of one shot melting into the beginning of the next."""
    length = int(rng.integers(6, 51))
    weight_T = _ramp(np.arange(1, length + 1) / (length + 1))
    return tail[:length] * (1 - weight_T) + head[-length:] * weight_T


def _fade(rng: np.random.Generator, tail: NDArray[np.float32], head: NDArray[np.float32]) -> NDArray[np.float32]:
    """The end of one shot going to black (or white), held, and the next one coming up."""
    out, hold, back = int(rng.integers(6, 26)), int(rng.integers(0, 11)), int(rng.integers(6, 26))
    colour = np.float32(rng.choice([0, 0, 0, 255]))
    down_T, up_T = _ramp(np.arange(1, out + 1) / out), _ramp(np.arange(back) / back)
    leaving = tail[:out] * (1 - down_T) + colour * down_T
    coming = head[-back:] * up_T + colour * (1 - up_T)
    return np.concatenate([leaving, np.full((hold, *tail.shape[1:]), colour, np.float32), coming])


def _ramp(weights: NDArray[np.float64]) -> NDArray[np.float32]:
    return weights[:, None, None, None].astype(np.float32)


def _joined_shots(rng: np.random.Generator, shots: int, join: _Join) -> tuple[NDArray, list[tuple[int, int]]]:
    """Shots of 50 to 150 frames, joined, and their transitions: (last frame of the old shot, first of the new one)."""
    palette = _palette(rng)
    pieces: list[NDArray[np.float32]] = []
    transitions: list[tuple[int, int]] = []
    tail, length = None, 0
    for _ in range(shots):
        shot = _shot(rng, int(rng.integers(50, 150)) + 2 * _SPARE, palette)
        head, body, next_tail = shot[:_SPARE], shot[_SPARE:-_SPARE], shot[-_SPARE:]
        if tail is not None:
            between = join(rng, tail, head)
            transitions.append((length - 1, length + len(between)))
            pieces.append(between)
            length += len(between)
        pieces.append(body)
        length += len(body)
        tail = next_tail
        if rng.random() < 0.6:
            palette = _palette(rng)
    return np.concatenate(pieces), transitions


# --- disturbances ----------------------------------------------------------------------------------------------------


def _with_flashes(rng: np.random.Generator, flashes: int) -> NDArray[np.float32]:
    """One shot, lit by photographers' flashes, lightning or muzzle fire of 1 to 4 frames, 30 to 90 frames apart."""
    starts = np.cumsum(rng.integers(30, 90, flashes)) + 20
    frames = _shot(rng, int(starts[-1]) + 60, _palette(rng))
    for start in starts:
        length = int(rng.integers(1, 5))
        strength_T = rng.uniform(0.4, 1.0) * np.linspace(1, 0.4, length, dtype=np.float32)
        lit = slice(start, start + length)
        frames[lit] += (255 - np.clip(frames[lit], 0, 255)) * strength_T[:, None, None, None]
    return frames


def _with_fast_motion(rng: np.random.Generator, movements: int) -> NDArray[np.float32]:
    """One shot with whip pans, shake, fast zooms and close passers-by, 40 to 90 frames apart."""
    starts = np.cumsum(rng.integers(40, 90, movements)) + 20
    length, palette = int(starts[-1]) + 80, _palette(rng)
    x_T, y_T = _walk(rng, length, 0.001), _walk(rng, length, 0.001)
    zoom_T = np.full(length, rng.uniform(0.9, 1.4))
    passers = []
    for start, movement in zip(starts, rng.choice(["pan", "shake", "zoom", "passer"], movements), strict=True):
        duration = int(rng.integers(8, 25))
        during = slice(start, start + duration)
        ease_T = 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, duration))
        if movement == "pan":
            distance = rng.choice([-1, 1]) * rng.uniform(0.5, 1.2)
            x_T[during] += distance * ease_T
            x_T[start + duration :] += distance
        elif movement == "shake":
            x_T[during] += rng.normal(0, 0.03, duration)
            y_T[during] += rng.normal(0, 0.03, duration)
        elif movement == "zoom":
            factor = rng.choice([0.5, 2.0])
            zoom_T[during] *= factor**ease_T
            zoom_T[start + duration :] *= factor
        else:
            passers.append((start, duration))
    zoom_T = np.clip(zoom_T, 0.6, 3.0)
    frames = _sample(_canvas(rng, palette), x_T, y_T, zoom_T)
    _add_objects(rng, frames, palette)
    for start, duration in passers:
        _draw_passer(rng, frames[start : start + duration], palette)
    return frames


def _draw_passer(rng: np.random.Generator, frames: NDArray[np.float32], palette: NDArray[np.float32]) -> None:
    """A dark or bright band as high as the picture that crosses ``frames [T, H, W, 3]`` close to the lens."""
    width = int(rng.uniform(0.3, 0.8) * WIDTH)
    colour = palette[rng.integers(8)] * rng.uniform(0.3, 0.8)
    texture = _pink_noise(rng, WIDTH)[:HEIGHT, :width, None] * 10
    for frame, left in zip(frames, np.linspace(-width, WIDTH, len(frames)).astype(int), strict=True):
        first, last = max(left, 0), min(left + width, WIDTH)
        frame[:, first:last] = colour + texture[:, first - left : last - left]


_JOINS: dict[str, _Join] = {"hard": _cut, "dissolve": _dissolve, "fade": _fade}
_DISTURBED = {"flash": _with_flashes, "motion": _with_fast_motion}
