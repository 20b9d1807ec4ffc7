"""Frames that were read, kept for questions that need them again.

Questions about one video ask for different events of it, and an event's frames lie at the same times whenever it is
asked for: after a question or two most frames are there.

Shapes: T frames, H height, W width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marc.io import file_state
from marc.types import Frames
from marc.video import read_frames

KEPT_BYTES = 2**28
"""How much of them is kept."""

_Shown = tuple[float, NDArray[np.uint8]]
"""When a picture is shown first, and the picture ``[H, W, 3]``."""


class KeptFrames:
    """Frames by file, size and time, the longest unused go first; threads may share it.

    Args:
        most: Bytes that may be kept.
    """

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self._most, self._bytes = most, 0
        self._frames: OrderedDict[tuple[Hashable, float], _Shown] = OrderedDict()
        self._lock = Lock()

    def read(self, path: str, seconds_T: NDArray[np.float64], **how: Any) -> Frames:
        """As `marc.video.read_frames`, of which only those are read that are not there.

        Args:
            path: A video file; one that has changed is another.
            seconds_T: Non-decreasing times.
            **how: Of `marc.video.read_frames`.

        Raises:
            VideoError: The file cannot be read.
        """
        file, times = (state_of(path), *sorted(how.items())), seconds_T.tolist()
        known = self._known(file, times)
        missing = [time for time in dict.fromkeys(times) if time not in known]
        if missing:
            frames = read_frames(path, missing, **how)
            shown = zip(frames.seconds.tolist(), frames.rgb, strict=True)
            known |= {time: (first, rgb.copy()) for time, (first, rgb) in zip(missing, shown, strict=True)}
        self._keep(file, known)
        return Frames(np.stack([known[time][1] for time in times]), np.array([known[time][0] for time in times]), path)

    def clear(self) -> None:
        """Drops all."""
        with self._lock:
            self._frames.clear()
            self._bytes = 0

    def _known(self, file: Hashable, times: Iterable[float]) -> dict[float, _Shown]:
        with self._lock:
            return {time: self._frames[file, time] for time in times if (file, time) in self._frames}

    def _keep(self, file: Hashable, frames: dict[float, _Shown]) -> None:
        with self._lock:
            for time, shown in frames.items():
                if (file, time) not in self._frames:
                    self._frames[file, time] = shown
                    self._bytes += shown[1].nbytes
                self._frames.move_to_end((file, time))
            while self._bytes > self._most:
                _, (_, rgb) = self._frames.popitem(last=False)
                self._bytes -= rgb.nbytes


def state_of(path: str) -> tuple[str, tuple[int, ...]]:
    """What tells a file from others, and from what it was before."""
    return str(Path(path).resolve()), file_state(path)
