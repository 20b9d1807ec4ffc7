"""Whether two pictures of a video show the same thing: the same place from the same or a slightly moved camera.

Shape legend: H height, W width of a glance, C = 3 (Y, U, V), R x K grid of blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        worst: Largest difference of a block without any shift, in levels.
    """

    shift: tuple[int, int]
    overlap: float
    alike: float
    worst: float


def likeness(first: Glance, second: Glance) -> Likeness:
    """Compare two glances."""
    shifts = {(0, 0), _shift(first[..., 0], second[..., 0])}
    alike, shift = max((_share_alike(first, second, shift), shift) for shift in shifts)
    overlap = (1 - abs(shift[0]) / HEIGHT) * (1 - abs(shift[1]) / WIDTH)
    return Likeness(shift, overlap, alike, float(_blocks_apart(first, second).max()))


def _shift(first_HW: Glance, second_HW: Glance) -> tuple[int, int]:
    """The shift at which two pictures correlate best (phase correlation, Kuglin and Hines 1975)."""
    window = np.hanning(HEIGHT)[:, None] * np.hanning(WIDTH)
    spectra = [np.fft.rfft2((each - each.mean()) * window) for each in (first_HW, second_HW)]
    cross = spectra[1] * spectra[0].conj()
    peak = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-6), s=(HEIGHT, WIDTH)).argmax()
    row, column = divmod(int(peak), WIDTH)
    return (row + HEIGHT // 2) % HEIGHT - HEIGHT // 2, (column + WIDTH // 2) % WIDTH - WIDTH // 2


def _share_alike(first: Glance, second: Glance, shift: tuple[int, int]) -> float:
    """Of the blocks that show more than a colour in either picture, the share that look alike after a shift."""
    down, right = shift
    height, width = HEIGHT - abs(down), WIDTH - abs(right)
    here = first[max(-down, 0) :, max(-right, 0) :][:height, :width]
    there = second[max(down, 0) :, max(right, 0) :][:height, :width]
    if min(height, width) < 4 * _BLOCK:
        return 0.0
    textured = np.maximum(_deviation(here), _deviation(there)) > _FLAT
    alike = _blocks_apart(here, there) < _ALIKE
    return float(alike[textured].mean()) if textured.mean() > _LEAST_TEXTURE else 0.0


def _blocks_apart(first: Glance, second: Glance) -> NDArray[np.float32]:
    """Largest difference of the colour of each block ``[R, K]``: how much its pixels differ on average."""
    return _grid(np.abs(first - second)).max(axis=-1)


def _deviation(glance: Glance) -> NDArray[np.float32]:
    luma = glance[..., :1]
    return np.sqrt(np.maximum(_grid(luma * luma) - _grid(luma) ** 2, 0))[..., 0]


def _grid(values: Glance) -> NDArray[np.float32]:
    rows, columns = values.shape[0] // _BLOCK, values.shape[1] // _BLOCK
    whole = values[: rows * _BLOCK, : columns * _BLOCK]
    return whole.reshape(rows, _BLOCK, columns, _BLOCK, -1).mean(axis=(1, 3))
