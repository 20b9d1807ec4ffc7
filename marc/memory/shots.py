"""From a video file to its shots and events: one reading, pushed to a shot detector and whoever else listens.

The default detector looks at every frame. Whoever wants other pictures of the same video, such as
`marc.memory.keyframes.KeyframeCollector`, is a `marc.video.FrameConsumer` beside it, so a video is decoded once.

Shape legend: T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marc.memory.descriptors import BlockDescriptors, Descriptors
from marc.memory.detectors import ShotDetector, Transition, make_detector
from marc.memory.events import MAX_SECONDS, MIN_SECONDS, check_limits, cut_into_events
from marc.types import Event, Frames, VideoInfo
from marc.video import EveryFrame, FrameConsumer, FrameRequest, LeftOut, probe, read_to, skim_to

Progress = Callable[[float], object]
"""Is told what share of a video, in [0, 1], has been read."""

_AHEAD = 8  # batches that the decoder may have ready, so that it works while the network does


@dataclass(frozen=True)
class Shots:
    """What a detector found in a video.

    Attributes:
        transitions: In time order.
        duration: Length of the video in seconds.
        descriptors: One small picture a second; none if the video was not decoded.
    """

    transitions: tuple[Transition, ...]
    duration: float
    descriptors: Descriptors

    @property
    def boundaries(self) -> list[float]:
        """Times from which on the later shots count, in seconds."""
        return [transition.boundary for transition in self.transitions]


def segment_events(
    video: str | Path,
    *,
    segmenter: str | ShotDetector = "transnetv2",
    min_seconds: float = MIN_SECONDS,
    max_seconds: float = MAX_SECONDS,
    progress: Progress | None = None,
    device: str | None = None,
) -> list[Event]:
    """Cuts a video into events that cover ``[0, duration)`` without gaps.

    Args:
        video: Path of the video.
        segmenter: ``"transnetv2"``, ``"scenedetect"``, ``"uniform"``, ``"package.module:Class"`` or a detector.
        min_seconds: Shorter shots are joined with their neighbours; only a shorter video gives a shorter event.
        max_seconds: Longer shots are split at their strongest changes.
        progress: Is told what share of the video has been read.
        device: Where the network of a segmenter that is named runs; None takes a CUDA GPU where there is one.

    Returns:
        Events in time order, each at most ``max_seconds`` long.

    Raises:
        ValueError: If the limits contradict each other or the segmenter is unknown.
        VideoError: If the video cannot be read.
    """
    check_limits(min_seconds, max_seconds)
    detector = make_detector(segmenter, device) if isinstance(segmenter, str) else segmenter
    shots = find_shots(video, detector, progress=progress)
    limits = {"min_seconds": min_seconds, "max_seconds": max_seconds}
    return cut_into_events(shots.boundaries, shots.duration, shots.descriptors, **limits)


def find_shots(
    video: str | Path,
    detector: ShotDetector,
    consumers: Sequence[FrameConsumer] = (),
    *,
    progress: Progress | None = None,
) -> Shots:
    """Reads a video once, from the first frame to the last, and finds its shots.

    Args:
        video: Path of the video.
        detector: Finds them.
        consumers: Who else gets frames of the same reading; nobody does if the detector needs none. If the detector
            skims, nobody gets all.
        progress: Is told how far the reading is.

    Raises:
        VideoError: If the video cannot be read.
    """
    info = probe(video)
    detector.start(info)
    if detector.frame_size is None:
        return Shots(tuple(detector.finish(info.duration)), info.duration, Descriptors.empty())
    request = EveryFrame(*detector.frame_size, takes_held=True)
    detection = _Detection(detector, request)
    descriptors = BlockDescriptors(request)
    clock = _Clock(info, request, progress)
    listeners = [*consumers, clock, descriptors, detection]
    if detector.skims:
        skim_to(video, listeners, ahead=_AHEAD)
    else:
        read_to(video, listeners, rough=True, ahead=_AHEAD)
    transitions = detection.transitions + list(detector.finish(clock.duration))
    return Shots(tuple(transitions), clock.duration, descriptors.descriptors)


class _Detection:
    """Hands frames to a detector and keeps what it finds."""

    def __init__(self, detector: ShotDetector, request: FrameRequest) -> None:
        self.request = request
        self.transitions: list[Transition] = []
        self._detector = detector

    def consume(self, frames: Frames) -> None:
        self.transitions += self._detector.process(frames)

    def skip(self, frames: LeftOut) -> None:
        self.transitions += self._detector.skip(frames)


class _Clock:
    """Tells how far a reading is."""

    def __init__(self, info: VideoInfo, request: FrameRequest, progress: Progress | None) -> None:
        self.request = request
        self._info = info
        self._progress = progress
        self._last_second = 0.0
        self._step = 0.0

    def consume(self, frames: Frames) -> None:
        self._reach(frames.seconds)

    def skip(self, frames: LeftOut) -> None:
        self._reach(frames.seconds)

    def _reach(self, seconds_T: NDArray[np.float64]) -> None:
        before, self._last_second = [self._last_second, *seconds_T.tolist()][-2:]
        self._step = self._last_second - before
        if self._progress is not None:
            self._progress(min(self._last_second / self._info.duration, 1.0))

    @property
    def duration(self) -> float:
        """Length of the video in seconds: what `probe` says, unless frames came later than that."""
        if self._last_second < self._info.duration:
            return self._info.duration
        return self._last_second + self._step
