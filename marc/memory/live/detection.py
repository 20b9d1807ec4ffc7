"""Shots of a source that does not end: what is found is said as soon as a little more has been seen.

Shape legend: T frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marc.memory.detectors import ShotDetector, Transition, make_detector
from marc.memory.detectors.transnetv2 import LONGEST_FADE, TransNetV2Detector, blank_frames
from marc.memory.detectors.windows import RunJoiner, Window, WindowCutter, Windowing
from marc.types import Frames, VideoInfo

SLOWEST, FASTEST = 20.0, 34.0
"""Frames per second between which detectors are shown a source's frames as they come."""
LIVE = Windowing(step=8, context=16, gated=True, longest_run=4)
"""Short windows, and fewer joined ones where frames come slowly: see `LONGEST_DELAY`."""
LONGEST_DELAY = (2 * LIVE.step + LIVE.context) / SLOWEST
"""Seconds of the source from a cut until it is known: those of two windows at the slowest rate."""
TINY = 1e-6
"""Seconds by which sums of times may be off."""
NEARLY = 0.1
"""Part of a frame by which it may last longer than at the slowest rate."""


class SteadyRate:
    """Shows frames at a rate that detectors were made for, and at which they are not late.

    Frames at a usual rate are shown as they are: to leave out one in six would make motion jump. Of faster ones some
    are left out, slower ones are shown several times.
    """

    def __init__(self) -> None:
        self._latest: tuple[NDArray[np.uint8], float] | None = None

    def shown(self, frames: Frames) -> Frames:
        """The frames that are shown by the time of the last one; each with its own true time."""
        shown: list[tuple[NDArray[np.uint8], float]] = []
        for rgb_HWC, second in zip(frames.rgb, frames.seconds.tolist(), strict=True):
            if self._latest is not None:
                lasted = second - self._latest[1]
                if lasted < 1 / FASTEST:
                    continue
                shown += [self._latest] * max(1, math.ceil(lasted * SLOWEST - NEARLY))
            self._latest = rgb_HWC, second
        if not shown:
            return Frames(frames.rgb[:0], np.zeros(0), frames.source)
        return Frames(np.stack([rgb for rgb, _ in shown]), np.array([second for _, second in shown]), frames.source)


class LiveTransNetV2Detector(TransNetV2Detector):
    """TransNetV2 that returns transitions while frames come, and keeps nothing of what lies behind.

    Its scores are those of windows of 40 to 64 frames. Two finds with an empty picture between them are one fade, of
    which the first counts.
    """

    skims = False

    def start(self, info: VideoInfo) -> None:
        """See `ShotDetector.start`."""
        self._windows, self._runs = WindowCutter(LIVE), _PromptJoiner(LIVE)
        self._waiting: list[tuple[float, bool]] = []  # time and emptiness of frames without a score yet
        self._finder = _TransitionFinder(self.threshold)

    def process(self, frames: Frames) -> Iterator[Transition]:
        """See `ShotDetector.process`."""
        if not len(frames):
            return
        self._waiting += zip(frames.seconds.tolist(), blank_frames(frames.rgb).tolist(), strict=True)
        for window in self._windows.add(frames.rgb):
            yield from self._found(self._runs.add(window))
            if self._runs.windows and self._will_be_late(self._runs.windows):
                yield from self._found(self._runs.finish())

    def _will_be_late(self, windows: int) -> bool:
        """Whether the first frame without a score would wait for too long if so many windows became one more."""
        now, then = (LIVE.step * count + LIVE.context for count in (windows, windows + 1))
        waited = self._waiting[min(now, len(self._waiting)) - 1][0] - self._waiting[0][0]
        return waited * then / (now - 1) > LONGEST_DELAY + TINY

    def finish(self, duration: float) -> Iterator[Transition]:
        """See `ShotDetector.finish`."""
        for window in self._windows.finish():
            yield from self._found(self._runs.add(window))
        yield from self._found(self._runs.finish())

    def _found(self, runs: Iterable[Window]) -> Iterator[Transition]:
        context = LIVE.context
        for run in runs:
            scores = np.zeros(run.scored, np.float32)
            if run.changes:
                scores = self._predict(run.frames)[context : context + run.scored].max(axis=1)
            for score, (second, is_blank) in zip(scores.tolist(), self._waiting[: run.scored], strict=True):
                yield from self._finder.add(score, second, is_blank)
            del self._waiting[: run.scored]


class _PromptJoiner(RunJoiner):
    """Gives a run of windows as soon as it is as long as it gets, not with the window that follows."""

    def add(self, window: Window) -> Iterator[Window]:
        yield from super().add(window)
        if len(self._run) == self._windowing.longest_run:
            yield from self.finish()


@dataclass
class _TransitionFinder:
    """Transitions from scores that come one by one, as `find_transitions` and `join_over_blanks` place them."""

    threshold: float

    def __post_init__(self) -> None:
        self._run: list[float] = []
        self._begun = self._is_blank_between = False
        self._since = LONGEST_FADE + 1  # frames since the last transition

    def add(self, score: float, second: float, is_blank: bool) -> Iterator[Transition]:
        """The transition that ends with a frame, if one does."""
        self._is_blank_between |= is_blank
        if score > self.threshold:
            if self._begun:
                self._run.append(second)
            return
        self._begun = True
        self._since += 1
        if not self._run:
            return
        times, self._run = [*self._run, second], []
        is_same_fade = self._since <= LONGEST_FADE and self._is_blank_between
        self._since, self._is_blank_between = 0, is_blank
        if not is_same_fade:
            yield Transition(times[0], second, times[len(times) // 2])


def live_detector(segmenter: str, device: str | None) -> ShotDetector:
    """The detector of a name for a source that does not end.

    Args:
        segmenter: As for `make_detector`; one that finds everything at the end leaves events to their longest length.
        device: Where a network runs.

    Raises:
        ValueError: As for `make_detector`.
    """
    if segmenter == "transnetv2":
        return LiveTransNetV2Detector(device=device)
    return make_detector(segmenter, device)
