"""Pictures of one video, kept until it is known which of them are needed: as JPEG, on disk.

A picture that a dual encoder sees takes a megabyte as it is and a tenth of that as JPEG; an hour has 900 of them.
"""

from __future__ import annotations

import io
import tempfile
import weakref

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_QUALITY = 95


class KeptPictures:
    """Pictures ``uint8 [H, W, 3]`` in a temporary file that nobody else sees; it is gone with this object."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._ends = [0]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, rgb_HWC: NDArray[np.uint8]) -> None:
        """Keep one more.

        Raises:
            OSError: The disk is full.
        """
        self._file.seek(self._ends[-1])
        Image.fromarray(rgb_HWC).save(self._file, "JPEG", quality=_QUALITY, subsampling=0)
        self._ends.append(self._file.tell())

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """A picture, as JPEG shows it."""
        return decoded(self.jpeg(index))

    def jpeg(self, index: int) -> bytes:
        """A picture as it is kept."""
        start, end = self._ends[index], self._ends[index + 1]
        self._file.seek(start)
        return self._file.read(end - start)

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of a picture."""
        return Image.open(io.BytesIO(self.jpeg(index))).size


def decoded(jpeg: bytes) -> NDArray[np.uint8]:
    """A picture ``uint8 [H, W, 3]`` that was kept."""
    return np.asarray(Image.open(io.BytesIO(jpeg)))
