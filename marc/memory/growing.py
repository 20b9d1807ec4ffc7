"""Arrays that grow with a video, each in one block of memory.

What is kept of a video comes in small pieces, made between the large temporary arrays of two networks. Kept as it
comes, each piece lies where such an array was, which then no longer fits there: the heap grows by far more than what
is kept. docs/memory.md has figures.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)


class GrowingArray(Generic[Number]):
    """Rows of equal shape and type, added in any number at a time.

    Args:
        dtype: Type of the numbers.
    """

    def __init__(self, dtype: type[Number]) -> None:
        self._dtype = dtype
        self._bytes = bytearray()
        self._row: tuple[int, ...] = ()

    def extend(self, rows: NDArray[Number]) -> None:
        """Copy rows ``[N, ...]`` to the end."""
        assert rows.dtype == self._dtype and (not self._bytes or rows.shape[1:] == self._row), rows.shape
        self._row = rows.shape[1:]
        self._bytes += rows.tobytes()

    @property
    def array(self) -> NDArray[Number]:
        """A copy of all rows so far."""
        return np.frombuffer(bytes(self._bytes), self._dtype).reshape(-1, *self._row)
