"""Shot boundaries of a video behind one interface: the first step of MARC's Visual Memory Retriever.

A `ShotDetector` reads every frame of a video once, in a stream, and returns `Shots`: the transitions between its
shots, and one small picture a second, by which `marc.memory.events` splits what has no boundary.

* ``transnetv2`` (default, `marc.memory.detectors.transnetv2`): the network of Soucek and Lokoc.
* ``scenedetect``: PySceneDetect's adaptive content detector and its fade detector, fed with our frames.
* ``uniform``: a boundary every few seconds, without decoding: the baseline.

Shape legend: T frames, H height, W width, C = 3 colours (RGB), S signatures, D numbers in each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from marc.memory.growing import GrowingArray
from marc.types import Frames
from marc.video import GlimpseOptions, probe, stream_frames

Progress = Callable[[float], object]
"""Is told what share of a video, in [0, 1], has been read."""

DETECTORS = ("transnetv2", "scenedetect", "uniform")


@dataclass(frozen=True)
class Transition:
    """Where one shot gives way to the next, in seconds.

    Attributes:
        start: Time of the last frame that shows only the earlier shot.
        end: Time of the first frame that shows only the later shot: for a hard cut the frame after ``start``'s.
        boundary: Time of the frame from which on the later shot counts: ``end`` for a hard cut, else the middle frame.
    """

    start: float
    end: float
    boundary: float


@dataclass(frozen=True)
class Signatures:
    """Small descriptions of a video at increasing times that tell where it changes.

    Attributes:
        seconds: ``float64 [S]``, increasing.
        vectors: ``[S, D]`` of any real type: pictures of 8 x 6 blocks, a second apart, as the detectors here make
            them, or embeddings.
    """

    seconds: NDArray[np.float64]
    vectors: NDArray[np.generic]

    def __post_init__(self) -> None:
        assert self.vectors.ndim == 2 and self.seconds.shape == self.vectors.shape[:1], self.vectors.shape

    @classmethod
    def empty(cls) -> Signatures:
        """No description at all."""
        return cls(np.empty(0), np.empty((0, 0), np.uint8))


@dataclass(frozen=True)
class Shots:
    """What a detector found in a video.

    Attributes:
        transitions: In time order.
        duration: Length of the video in seconds.
        signatures: Empty where the detector did not decode.
    """

    transitions: tuple[Transition, ...]
    duration: float
    signatures: Signatures


class ShotDetector(Protocol):
    """Anything that finds the shot boundaries of a video."""

    def detect(
        self, video: str | Path, *, progress: Progress | None = None, glimpses: GlimpseOptions | None = None
    ) -> Shots:
        """Reads a video once, from the first frame to the last.

        Args:
            video: Path of the video.
            progress: Is told how far the reading is.
            glimpses: Larger pictures that somebody wants of the video; a detector that does not decode takes none.

        Raises:
            VideoError: If the video cannot be read.
        """
        ...


def shot_detector(name: str, device: str | None = None) -> ShotDetector:
    """The detector of a name, with its default settings.

    Args:
        name: One of `DETECTORS`.
        device: Where a network runs; None takes a CUDA GPU where there is one.

    Raises:
        ValueError: For an unknown name.
    """
    if name == "transnetv2":
        from marc.memory.detectors.transnetv2 import TransNetV2Detector

        return TransNetV2Detector(device=device)
    if name == "scenedetect":
        return SceneDetectDetector()
    if name == "uniform":
        return UniformDetector()
    raise ValueError(f"unknown segmenter {name!r}; choose one of {', '.join(DETECTORS)}")


_AHEAD = 8  # batches that the decoder may have ready, so that it works while the network does


class FrameStream:
    """Every frame of a video at its native rate, with what is learnt in passing.

    Memory stays constant but for the times (8 bytes a frame) and the signatures (144 bytes a second).

    Args:
        video: Path of the video.
        width: Width of the frames in pixels.
        height: Height of the frames in pixels.
        progress: Is told how far the reading is.
        glimpses: Larger pictures to take in passing.
        batch: Frames per item.

    Raises:
        VideoError: While iterating, if the video cannot be read.
    """

    _SIGNATURE_SIZE = (6, 8)
    _SIGNATURE_INTERVAL = 1.0  # seconds

    def __init__(
        self,
        video: str | Path,
        *,
        width: int,
        height: int,
        progress: Progress | None = None,
        glimpses: GlimpseOptions | None = None,
        batch: int = 100,
    ) -> None:
        self.info = probe(video)
        self._progress = progress or (lambda share: None)
        self._frames = stream_frames(
            video, width=width, height=height, batch=batch, rough=True, ahead=_AHEAD, glimpses=glimpses
        )
        self._seconds = GrowingArray(np.float64)
        self._last_second = 0.0
        self._signature_seconds: list[float] = []
        self._signatures = GrowingArray(np.uint8)

    def __iter__(self) -> Iterator[Frames]:
        for frames in self._frames:
            self._seconds.extend(frames.seconds)
            self._last_second = float(frames.seconds[-1])
            self._sign(frames)
            self._progress(min(self._last_second / self.info.duration, 1.0))
            yield frames

    @property
    def seconds(self) -> NDArray[np.float64]:
        """``float64 [T]``: times of the frames read so far."""
        return self._seconds.array

    @property
    def duration(self) -> float:
        """Length in seconds: the file's statement, unless frames came later than that."""
        return max(self.info.duration, self._last_second + 1 / self.info.fps)

    @property
    def signatures(self) -> Signatures:
        """One small picture for every second read so far."""
        return Signatures(np.array(self._signature_seconds), self._signatures.array)

    def _sign(self, frames: Frames) -> None:
        for index, second in enumerate(frames.seconds):
            due = self._signature_seconds[-1] + self._SIGNATURE_INTERVAL if self._signature_seconds else 0.0
            if second >= due:
                self._signature_seconds.append(float(second))
                blocks = block_means(frames.rgb[index], *self._SIGNATURE_SIZE).astype(np.uint8)
                self._signatures.extend(blocks.reshape(1, -1))


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


class SceneDetectDetector:
    """PySceneDetect's `AdaptiveDetector` (cuts) and `ThresholdDetector` (fades) with their default settings."""

    _WIDTH, _HEIGHT = 256, 144  # PySceneDetect itself scales to about this width

    def detect(
        self, video: str | Path, *, progress: Progress | None = None, glimpses: GlimpseOptions | None = None
    ) -> Shots:
        """See `ShotDetector.detect`."""
        from scenedetect import AdaptiveDetector, FrameTimecode, ThresholdDetector

        stream = FrameStream(video, width=self._WIDTH, height=self._HEIGHT, progress=progress, glimpses=glimpses)
        detectors = (AdaptiveDetector(), ThresholdDetector())
        cuts: set[int] = set()
        last = FrameTimecode(0, fps=stream.info.fps)
        for frames in stream:
            for rgb_HWC in frames.rgb:
                bgr_HWC = np.ascontiguousarray(rgb_HWC[..., ::-1])
                for detector in detectors:
                    cuts.update(cut.frame_num for cut in detector.process_frame(last, bgr_HWC))
                last = last + 1
        for detector in detectors:
            cuts.update(cut.frame_num for cut in detector.post_process(last - 1))
        seconds_T = stream.seconds
        transitions = tuple(
            Transition(float(seconds_T[cut - 1]), float(seconds_T[cut]), float(seconds_T[cut]))
            for cut in sorted(cuts)
            if 0 < cut < len(seconds_T)
        )
        return Shots(transitions, stream.duration, stream.signatures)


class UniformDetector:
    """A boundary every few seconds, whatever is shown.

    Args:
        interval: Seconds from one boundary to the next.

    Raises:
        ValueError: If the interval is not positive.
    """

    def __init__(self, interval: float = 10.0) -> None:
        if not interval > 0:
            raise ValueError(f"interval must be a positive number of seconds, got {interval}")
        self.interval = interval

    def detect(
        self, video: str | Path, *, progress: Progress | None = None, glimpses: GlimpseOptions | None = None
    ) -> Shots:
        """See `ShotDetector.detect`; reads only the header, so there is no progress to tell of, and no glimpse."""
        duration = probe(video).duration
        times = np.arange(1, np.ceil(duration / self.interval)) * self.interval
        return Shots(tuple(Transition(t, t, t) for t in times.tolist()), duration, Signatures.empty())
