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
        self._next = FrameTimecode(0, fps=info.fps)
        self._seconds = GrowingArray(np.float64)
        self._cuts: set[int] = set()

    def process(self, frames: Frames) -> Iterable[Transition]:
        """See `ShotDetector.process`; transitions are returned by `finish`."""
        self._seconds.extend(frames.seconds)
        for rgb_HWC in frames.rgb:
            bgr_HWC = np.ascontiguousarray(rgb_HWC[..., ::-1])
            for detector in self._detectors:
                self._cuts.update(cut.frame_num for cut in detector.process_frame(self._next, bgr_HWC))
            self._next = self._next + 1
        return ()

    def finish(self, duration: float) -> Iterable[Transition]:
        """See `ShotDetector.finish`."""
        for detector in self._detectors:
            self._cuts.update(cut.frame_num for cut in detector.post_process(self._next - 1))
        seconds_T = self._seconds.array
        return [
            Transition(float(seconds_T[cut - 1]), float(seconds_T[cut]), float(seconds_T[cut]))
            for cut in sorted(self._cuts)
            if 0 < cut < len(seconds_T)
        ]
