"""Sources of a live memory, decoded in two sizes by another process: a file that is played, an address, a camera.

A source that was lost is tried again, with longer and longer pauses; what was not seen is a gap.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from marc.memory.live.memory import LiveMemory
from marc.types import Frames
from marc.video import EveryFrame, FrameRequest, SampledFrames, VideoError, probe, read_to
from marc.video.process import POOL
from marc.video.watching import Opened, Watch, shown

logger = logging.getLogger(__name__)

BATCH = 4
"""Small frames that come at a time: a fifth of a second at most, by which an event's end is known later."""
WHOLE = 2**26
"""Pixels that no frame has: frames are kept in full size."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds between two attempts to find a source again."""
_AHEAD = 8
_Result = TypeVar("_Result")


def follow_file(
    path: str | Path,
    memory: LiveMemory,
    *,
    speed: float = 1.0,
    timeout: float = 60.0,
    tick: Callable[[], object] | None = None,
) -> float:
    """Plays a file from where the memory has seen it to its end.

    Args:
        path: A video file.
        memory: Gets the frames.
        speed: How many times faster than it was recorded; what cannot be kept up with comes later.
        timeout: Seconds after which to give up waiting for frames.
        tick: Is called whenever some frames were taken.

    Returns:
        The end of the file, as it says itself, for `LiveMemory.end`.

    Raises:
        VideoError: The file cannot be read.
    """
    size = memory.detector_size
    player = _Player(memory, speed, tick)
    small = _Consumer(EveryFrame(*size, batch=BATCH, takes_held=True), player.take_small)
    kept = _Consumer(SampledFrames(1 / memory.options.recent_fps, WHOLE), player.take_kept)
    duration = probe(path, timeout=timeout).duration
    if memory.until < duration:
        read_to(path, [small, kept], start=memory.until, rough=True, ahead=_AHEAD, timeout=timeout)
        player.take_rest()
    return duration


def follow_live(
    source: str,
    memory: LiveMemory,
    *,
    patience: float = 60.0,
    timeout: float = 10.0,
    tick: Callable[[], object] | None = None,
) -> bool:
    """Watches an address or a camera until it is over: a recording at its end, others when they stay lost.

    Args:
        source: An address of a kind in `marc.video.watching.PROTOCOLS`, or the device of a camera.
        memory: Gets the frames.
        patience: Seconds for which a source that was lost, or is not there yet, is tried again.
        timeout: Seconds without a frame after which it is lost.
        tick: Is called whenever some frames were taken.

    Returns:
        Whether it came to its end; else it was lost.

    Raises:
        VideoError: It was never there, or it is a recording that cannot be read on.
    """
    there_at, pause = time.monotonic(), FIRST_PAUSE
    was_there = is_finite = False
    while True:
        try:
            for opened in _watch_once(source, memory, timeout, tick):
                there_at, pause, was_there = time.monotonic(), FIRST_PAUSE, True
                is_finite = opened.is_finite
            problem = VideoError(f"{shown(source)}: it ended")
        except VideoError as error:
            if is_finite:
                raise  # a recording would be read from its start again
            problem = error
        else:
            if is_finite:
                return True
        if time.monotonic() + pause - there_at > patience:
            if not was_there:
                raise problem
            logger.warning("%s; it is given up", problem)
            return False
        logger.warning("%s; tried again in %.0f s", problem, pause)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _watch_once(
    source: str, memory: LiveMemory, timeout: float, tick: Callable[[], object] | None
) -> Iterator[Opened]:
    """Pushes what comes until the source ends; gives what it says of itself, again and again."""
    job = Watch(source, memory.detector_size, 1 / memory.options.recent_fps, timeout)
    opened = Opened(0.0, is_finite=False)
    for result, rgb_THWC in _without_secrets(POOL.run(job, 2 * timeout, ahead=_AHEAD), source):
        if isinstance(result, Opened):
            opened = result
            memory.go_on()
            continue
        is_whole, seconds_T = result
        assert rgb_THWC is not None
        frames = Frames(rgb_THWC, seconds_T, source)
        (memory.push_kept if is_whole else memory.push_small)(frames)
        if tick is not None:
            tick()
        yield opened


def _without_secrets(results: Iterator[_Result], source: str) -> Iterator[_Result]:
    """The same; errors name the source without what is secret in its address."""
    try:
        yield from results
    except VideoError as error:
        raise VideoError(str(error).replace(source, shown(source))) from None


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
