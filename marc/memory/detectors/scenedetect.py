"""PySceneDetect's detectors of cuts and fades, fed with our frames. It is part of the extra ``segmenters``."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from marc.extras import extra
from marc.memory.detectors.base import ShotDetector, Transition
from marc.memory.growing import GrowingArray
from marc.types import Frames, VideoInfo

EXTRA = "segmenters"


class SceneDetectDetector(ShotDetector):
    """PySceneDetect's `AdaptiveDetector` (cuts) and `ThresholdDetector` (fades) with their default settings.

    Both count frames (their shortest scene is 15), so frames are numbered as they would be at a constant rate.

    Raises:
        MissingExtraError: In `start` and `version`, if PySceneDetect is not installed.
    """

    frame_size = (256, 144)  # PySceneDetect itself scales to about this width
    package = "scenedetect"

    @classmethod
    def version(cls) -> str:
        """See `ShotDetector.version`."""
        with extra(EXTRA):
            return super().version()

    def start(self, info: VideoInfo) -> None:
        """See `ShotDetector.start`."""
        with extra(EXTRA):
            from scenedetect import AdaptiveDetector, FrameTimecode, ThresholdDetector
        self._detectors = (AdaptiveDetector(), ThresholdDetector())
        self._rate = 1 / float(np.diff(info.starts).min()) if info.starts else info.fps
        self._now = FrameTimecode(0, fps=self._rate)
        self._latest: float | None = None
        self._numbers, self._seconds = GrowingArray(np.int64), GrowingArray(np.float64)
        self._cuts: set[int] = set()

    def process(self, frames: Frames) -> Iterable[Transition]:
        """See `ShotDetector.process`; transitions are returned by `finish`."""
        self._seconds.extend(frames.seconds)
        for second, rgb_HWC in zip(frames.seconds.tolist(), frames.rgb, strict=True):
            if self._latest is not None:
                self._now = self._now + max(1, round((second - self._latest) * self._rate))
            self._latest = second
            self._numbers.extend(np.array([self._now.frame_num]))
            bgr_HWC = np.ascontiguousarray(rgb_HWC[..., ::-1])
            for detector in self._detectors:
                self._cuts.update(cut.frame_num for cut in detector.process_frame(self._now, bgr_HWC))
        return ()

    def finish(self, duration: float) -> Iterable[Transition]:
        """See `ShotDetector.finish`."""
        for detector in self._detectors:
            self._cuts.update(cut.frame_num for cut in detector.post_process(self._now))
        seconds_T = self._seconds.array
        cuts_N = np.flatnonzero(np.isin(self._numbers.array, list(self._cuts)))
        return [
            Transition(float(seconds_T[cut - 1]), float(seconds_T[cut]), float(seconds_T[cut]))
            for cut in cuts_N.tolist()
            if cut > 0
        ]
