"""Small descriptions of a video by which stretches without a boundary are split.

Shape legend: S descriptors, D numbers in each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marc.memory.growing import GrowingArray
from marc.types import Frames

if TYPE_CHECKING:
    from marc.video import FrameRequest, LeftOut


@dataclass(frozen=True)
class Descriptors:
    """What a video looks like at increasing times; it changes where they do.

    Attributes:
        seconds: ``float64 [S]``, increasing.
        vectors: ``[S, D]`` of any real type: pictures of 8 x 6 blocks, a second apart, as `BlockDescriptors` makes
            them, or embeddings.
    """

    seconds: NDArray[np.float64]
    vectors: NDArray[np.generic]

    def __post_init__(self) -> None:
        assert self.vectors.ndim == 2 and self.seconds.shape == self.vectors.shape[:1], self.vectors.shape

    def __len__(self) -> int:
        return len(self.seconds)

    @classmethod
    def empty(cls) -> Descriptors:
        """No description at all."""
        return cls(np.empty(0), np.empty((0, 0), np.uint8))


class BlockDescriptors:
    """Describes one frame a second of what is pushed to it by its mean colours in 8 x 6 blocks.

    Memory grows by 152 bytes a second.

    Args:
        request: Which frames to describe.
    """

    ROWS, COLUMNS = 6, 8
    INTERVAL = 1.0  # seconds

    def __init__(self, request: FrameRequest) -> None:
        self.request = request
        self._seconds: list[float] = []
        self._vectors = GrowingArray(np.uint8)

    def consume(self, frames: Frames) -> None:
        """Describe those of some frames that are due."""
        for index, second in enumerate(frames.seconds):
            if not self._seconds or second >= self._seconds[-1] + self.INTERVAL:
                self._seconds.append(float(second))
                blocks = block_means(frames.rgb[index], self.ROWS, self.COLUMNS).astype(np.uint8)
                self._vectors.extend(blocks.reshape(1, -1))

    def skip(self, frames: LeftOut) -> None:
        """Describe those of some frames that are due as the last one: they show the same."""
        for second in frames.seconds.tolist():
            if second >= self._seconds[-1] + self.INTERVAL:
                self._seconds.append(second)
                self._vectors.extend(self._vectors.array[-1:])

    @property
    def descriptors(self) -> Descriptors:
        """Those so far."""
        return Descriptors(np.array(self._seconds), self._vectors.array) if self._seconds else Descriptors.empty()


def block_means(frames: NDArray[np.generic], rows: int, columns: int) -> NDArray[np.float32]:
    """Averages pictures ``[..., H, W, C]`` over a grid of equal blocks to ``[..., rows, columns, C]``.

    Rows and columns of pixels beyond the last whole block are left out.
    """
    *leading, height, width, channels = frames.shape
    block_height, block_width = height // rows, width // columns
    whole = frames[..., : rows * block_height, : columns * block_width, :]
    blocks = whole.reshape(*leading, rows, block_height, columns, block_width, channels)
    sums = blocks.sum(axis=-4, dtype=np.float32).sum(axis=-2)  # one axis at a time: five times as fast as both at once
    return sums / np.float32(block_height * block_width)
