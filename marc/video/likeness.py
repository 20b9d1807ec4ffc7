"""Whether two pictures of a video show the same thing: the same place from the same or a slightly moved camera.

Shape legend: H height, W width of a glance, C = 3 (Y, U, V), R x K grid of blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

WIDTH, HEIGHT = 160, 96
_BLOCK = 4
_FLAT = 3.0
"""Levels of deviation below which a block shows no more than a colour."""
_ALIKE = 8.0
"""Levels by which the means of two blocks of one thing may differ."""
_LEAST_TEXTURE = 0.1
_SILENT = 1e-6
_STILL = 6.0
"""Levels by which no block may differ of pictures one of which stands for both."""
SAME_OVERLAP, _SAME_ALIKE = 0.9, 0.6
"""How much two pictures of one shot must have in common: a cut between two views of a place moves it farther."""
_LEFT_OVERLAP = 0.5
"""Share of the picture that a camera may have left in view."""
_OTHER_ALIKE, _OTHER_PATTERN, _TEXTURED = 0.1, 0.5, 0.2
"""Share of alike blocks up to which two pictures show different places, correlation of their brightness up to which it
is not the same one in another light, and share of blocks that must show something."""

Glance = NDArray[np.float32]
"""A small picture ``[H, W, C]``, in levels of 0 to 255."""


class Glancer:
    """Makes glances of decoded pictures."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> Glance:
        """The glance of a picture."""
        size = {"width": WIDTH, "height": HEIGHT, "interpolation": Interpolation.AREA}
        planes_CHW = self._reformatter.reformat(frame, format="yuv444p", **size).to_ndarray()
        return np.moveaxis(planes_CHW, 0, -1).astype(np.float32)


@dataclass(frozen=True)
class Likeness:
    """How two pictures compare.

    Attributes:
        shift: Rows and columns of a glance by which the second is moved against the first, as well as can be told.
        overlap: Share of the picture that both show if that is so.
        alike: Share of the textured blocks there that look alike.
        textured: Share of the blocks that show more than a colour, in either picture.
        pattern: Correlation of their brightness without any shift.
    """

    shift: tuple[int, int]
    overlap: float
    alike: float
    textured: float
    pattern: float


def likeness(first: Glance, second: Glance) -> Likeness:
    """Compare two glances."""
    shifts = {(0, 0), _shift(first[..., 0], second[..., 0])}
    alike, textured, shift = max((*_share_alike(first, second, shift), shift) for shift in shifts)
    overlap = (1 - abs(shift[0]) / HEIGHT) * (1 - abs(shift[1]) / WIDTH)
    return Likeness(shift, overlap, alike, textured, _pattern(first, second))


def show_same_place(first: Glance, second: Glance) -> bool:
    """Whether two pictures surely show the same place."""
    if are_still(first, second):
        return True
    found = likeness(first, second)
    return found.overlap >= SAME_OVERLAP and found.alike >= _SAME_ALIKE


def may_be_one_shot(first: Glance, second: Glance) -> bool:
    """Whether two pictures show much of the same thing, a camera that turned meanwhile allowed for."""
    found = likeness(first, second)
    return found.overlap >= _LEFT_OVERLAP and found.alike >= _SAME_ALIKE


def are_still(first: Glance, second: Glance) -> bool:
    """Whether two pictures differ so little that one stands for both."""
    return float(_blocks_apart(first, second).max()) <= _STILL


def show_other_place(first: Glance, second: Glance) -> bool:
    """Whether two pictures have hardly anything in common, also in another light, and show enough to tell."""
    found = likeness(first, second)
    return found.textured >= _TEXTURED and found.alike <= _OTHER_ALIKE and found.pattern <= _OTHER_PATTERN


def _pattern(first: Glance, second: Glance) -> float:
    lumas = [glance[..., 0] - glance[..., 0].mean() for glance in (first, second)]
    norm = float(np.sqrt(np.square(lumas[0]).sum() * np.square(lumas[1]).sum()))
    return float((lumas[0] * lumas[1]).sum()) / norm if norm else 0.0


@dataclass(frozen=True)
class Drift:
    """How a picture has moved, by the movement of its four quarters.

    Attributes:
        common: Rows and columns of a glance by which all have moved: a camera that turns.
        apart: The most by which one has moved otherwise: a camera that comes nearer or rolls, or no common movement.
    """

    common: tuple[float, float]
    apart: float


def drift(first: Glance, second: Glance) -> Drift:
    """How the second picture has moved against the first, to fractions of a pixel of a glance."""
    halves = [(slice(0, HEIGHT // 2), slice(HEIGHT // 2, HEIGHT)), (slice(0, WIDTH // 2), slice(WIDTH // 2, WIDTH))]
    quarters = [(rows, columns) for rows in halves[0] for columns in halves[1]]
    moves_4x2 = np.array([fine_shift(first[quarter][..., 0], second[quarter][..., 0]) for quarter in quarters])
    common_2 = moves_4x2.mean(axis=0)
    apart = float(np.abs(moves_4x2 - common_2).max())
    return Drift((float(common_2[0]), float(common_2[1])), apart)


def _shift(first_HW: Glance, second_HW: Glance) -> tuple[int, int]:
    """The whole shift at which two pictures correlate best."""
    row, column = fine_shift(first_HW, second_HW)
    return round(row), round(column)


def fine_shift(first_HW: Glance, second_HW: Glance) -> tuple[float, float]:
    """Rows and columns by which a picture has moved (phase correlation, Kuglin and Hines 1975)."""
    height, width = first_HW.shape
    window_HW = _window(height, width)
    spectra = [np.fft.rfft2((each - each.mean()) * window_HW) for each in (first_HW, second_HW)]
    cross = spectra[1] * spectra[0].conj()
    surface_HW = np.fft.irfft2(cross / np.maximum(np.abs(cross), _SILENT), s=(height, width))
    row, column = divmod(int(surface_HW.argmax()), width)
    down = row + _between(surface_HW[:, column], row)
    right = column + _between(surface_HW[row], column)
    return (down + height / 2) % height - height / 2, (right + width / 2) % width - width / 2


@cache
def _window(height: int, width: int) -> NDArray[np.float64]:
    """What keeps the edges of a picture from being seen."""
    return np.hanning(height)[:, None] * np.hanning(width)


def _between(values: NDArray[np.floating], peak: int) -> float:
    """By how much a shift between two pixels lies beside the higher one of its two peaks (Foroosh et al. 2002)."""
    before, top, after = (float(values[(peak + step) % len(values)]) for step in (-1, 0, 1))
    side, second = (1, after) if after > before else (-1, before)
    return side * second / (top + second) if second > 0 else 0.0


def _share_alike(first: Glance, second: Glance, shift: tuple[int, int]) -> tuple[float, float]:
    """Of the blocks that show more than a colour in either picture, the share that look alike after a shift.

    Returns:
        That share, 0 where there are too few such blocks to tell, and their share of all.
    """
    down, right = shift
    height, width = HEIGHT - abs(down), WIDTH - abs(right)
    if min(height, width) < 4 * _BLOCK:
        return 0.0, 0.0
    here = first[max(-down, 0) :, max(-right, 0) :][:height, :width]
    there = second[max(down, 0) :, max(right, 0) :][:height, :width]
    textured_RK = np.maximum(_deviation(here), _deviation(there)) > _FLAT
    alike_RK = _blocks_apart(here, there) < _ALIKE
    textured = float(textured_RK.mean())
    return (float(alike_RK[textured_RK].mean()) if textured > _LEAST_TEXTURE else 0.0), textured


def _blocks_apart(first: Glance, second: Glance) -> NDArray[np.float32]:
    """Largest difference of the colour of each block ``[R, K]``: how much its pixels differ on average."""
    return _grid(np.abs(first - second)).max(axis=-1)


def _deviation(glance: Glance) -> NDArray[np.float32]:
    luma = np.ascontiguousarray(glance[..., :1])
    return np.sqrt(np.maximum(_grid(luma * luma) - _grid(luma) ** 2, 0))[..., 0]


def _grid(values: Glance) -> NDArray[np.float32]:
    rows, columns = values.shape[0] // _BLOCK, values.shape[1] // _BLOCK
    whole = values[: rows * _BLOCK, : columns * _BLOCK]
    sums = whole.reshape(rows, _BLOCK, columns * _BLOCK, -1).sum(axis=1)  # one axis at a time: along long rows
    return sums.reshape(rows, columns, _BLOCK, -1).sum(axis=2) / np.float32(_BLOCK**2)
