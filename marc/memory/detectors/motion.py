"""What two pictures of a video have in common if the camera has moved from one to the other.

Shape legend: H height, W width, C = 3 colours (RGB).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marc.memory.descriptors import block_means
from marc.video.likeness import fine_shift

_Picture = NDArray[np.float32]


class Common(NamedTuple):
    """The part of two pictures that both show.

    Attributes:
        share: Its share of a picture.
        first: As the first one shows it, ``[H, W, C]``.
        second: As the second one does.
    """

    share: float
    first: _Picture
    second: _Picture

    @property
    def difference(self) -> float:
        """Mean absolute difference in grey levels."""
        return float(np.abs(self.first - self.second).mean())

    @property
    def coarse_difference(self) -> float:
        """That of averages over 3 x 4 blocks."""
        return float(np.abs(block_means(self.first, 3, 4) - block_means(self.second, 3, 4)).mean())


def common_part(first_HWC: NDArray[np.uint8], second_HWC: NDArray[np.uint8], least: float) -> Common | None:
    """What is left in view if the second of two pictures is the first one, moved.

    Args:
        first_HWC: A picture.
        second_HWC: A later one, of the same size.
        least: Share of the picture that must be left.

    Returns:
        It, or None if the movement at which they correlate best leaves less.
    """
    first, second = first_HWC.astype(np.float32), second_HWC.astype(np.float32)
    shifts = fine_shift(first.mean(axis=-1), second.mean(axis=-1))
    share = math.prod(1 - abs(shift) / side for shift, side in zip(shifts, first.shape, strict=False))
    if share < least:
        return None
    for axis, shift in enumerate(shifts):
        first, second = _aligned(first, second, shift, axis)
    return Common(share, first, second)


def _aligned(first: _Picture, second: _Picture, shift: float, axis: int) -> tuple[_Picture, _Picture]:
    """What both show of a picture and one that has moved along an axis; between pixels both are blurred alike."""
    if shift < 0:
        return _aligned(second, first, -shift, axis)[::-1]
    start = (round(shift) - shift) / 2 % 1
    count = math.floor(first.shape[axis] - shift - start)
    return _sampled(first, start, count, axis), _sampled(second, shift + start, count, axis)


def _sampled(picture: _Picture, start: float, count: int, axis: int) -> _Picture:
    """A picture at so many places a pixel apart, by linear interpolation."""
    whole, part = math.floor(start), start - math.floor(start)
    here, next_to_it = (picture.take(range(first, first + count), axis, mode="clip") for first in (whole, whole + 1))
    blended: _Picture = (1 - part) * here + part * next_to_it
    return blended
