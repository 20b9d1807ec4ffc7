"""A file that is played into a live memory, in real time or faster, decoded once in two sizes by another process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from marc.memory.live.memory import LiveMemory
from marc.types import Frames
from marc.video import EveryFrame, FrameRequest, SampledFrames, probe, read_to

BATCH = 8
"""Small frames that come at a time: a third of a second, by which an event's end is known later."""
WHOLE = 2**26
"""Pixels that no frame has: frames are kept in full size."""
_AHEAD = 8


def follow_file(
    path: str | Path,
    memory: LiveMemory,
    *,
    speed: float = 1.0,
    timeout: float = 60.0,
    tick: Callable[[], object] | None = None,
) -> None:
    """Plays a file from where the memory has seen it to its end.

    Args:
        path: A video file.
        memory: Gets the frames.
        speed: How many times faster than it was recorded; what cannot be kept up with comes later.
        timeout: Seconds after which to give up waiting for frames.
        tick: Is called whenever some frames were taken.

    Raises:
        VideoError: The file cannot be read.
    """
    size = memory.detector_size
    player = _Player(memory, speed, tick)
    small = _Consumer(EveryFrame(*size, batch=BATCH, takes_held=True), player.take_small)
    kept = _Consumer(SampledFrames(1 / memory.options.recent_fps, WHOLE), player.take_kept)
    if memory.until >= probe(path, timeout=timeout).duration:
        return
    read_to(path, [small, kept], start=memory.until, rough=True, ahead=_AHEAD, timeout=timeout)
    player.take_rest()


class _Consumer:
    """Hands frames of a request on."""

    def __init__(self, request: FrameRequest, take: Callable[[Frames], None]) -> None:
        self.request, self.consume = request, take


class _Player:
    """Paces small frames, and has kept frames wait for the small ones of their time."""

    def __init__(self, memory: LiveMemory, speed: float, tick: Callable[[], object] | None) -> None:
        self._memory, self._speed, self._tick = memory, speed, tick
        self._start: tuple[float, float] | None = None
        self._waiting: list[Frames] = []

    def take_small(self, frames: Frames) -> None:
        last = float(frames.seconds[-1])
        self._pace(last)
        self._memory.push_small(frames)
        self._give(last)
        if self._tick is not None:
            self._tick()

    def take_kept(self, frames: Frames) -> None:
        self._waiting.append(frames)

    def take_rest(self) -> None:
        """At the end of the file."""
        self._give(float("inf"))

    def _give(self, until: float) -> None:
        while self._waiting and self._waiting[0].seconds[0] <= until:
            self._memory.push_kept(self._waiting.pop(0))

    def _pace(self, second: float) -> None:
        now = time.monotonic()
        if self._start is None:
            self._start = now, second
        ahead = (second - self._start[1]) / self._speed - (now - self._start[0])
        if ahead > 0:
            time.sleep(ahead)
