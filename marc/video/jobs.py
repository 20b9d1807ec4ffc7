"""What can be asked of the decoding process: describe a file, read frames of it, stream all of it.

A job is a frozen record that travels to the process and is run there; it may raise `VideoError`. Frames are written
into memory that both sides map (`Allocate`), so that no picture is copied on its way.

Shapes: T frames, H height, W width, C = 3 colours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marc.types import VideoInfo
from marc.video.decoders import Converter, decoder
from marc.video.decoding import open_video
from marc.video.sampling import frame_size, sample_times

Allocate = Callable[[tuple[int, int, int, int]], NDArray[np.uint8]]
Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Probe:
    """Describe a file."""

    path: str

    def run(self, allocate: Allocate) -> Iterator[VideoInfo]:
        """Give the description."""
        with open_video(self.path) as reader:
            yield reader.info


@dataclass(frozen=True)
class Read:
    """Read the frames shown at `seconds`, or sampled ones where that is None; see `marc.video.read_frames`."""

    path: str
    seconds: Seconds | None
    fps: float
    max_frames: int
    min_frames: int
    start: float
    end: float | None
    min_pixels: int
    max_pixels: int
    factor: int
    backend: str

    def run(self, allocate: Allocate) -> Iterator[Seconds]:
        """Fill one array with the frames and give their true times."""
        with open_video(self.path) as reader:
            seconds_T = self.seconds
            if seconds_T is None:
                seconds_T = sample_times(
                    reader.info,
                    fps=self.fps,
                    max_frames=self.max_frames,
                    min_frames=self.min_frames,
                    start=self.start,
                    end=self.end,
                )
            width, height = frame_size(
                reader.info.width,
                reader.info.height,
                min_pixels=self.min_pixels,
                max_pixels=self.max_pixels,
                factor=self.factor,
                source=self.path,
            )
            rgb_THWC = allocate((len(seconds_T), height, width, 3))
            yield decoder(self.backend)(reader, seconds_T, rgb_THWC)


@dataclass(frozen=True)
class Glimpse:
    """A larger picture that a `Stream` came by, at this time in seconds."""

    seconds: float


@dataclass(frozen=True)
class Stream:
    """Read every `stride`-th frame shown in ``[start, end)``, `batch` at a time; see `marc.video.stream_frames`."""

    path: str
    width: int
    height: int
    batch: int
    stride: int
    start: float
    end: float | None
    rough: bool
    glimpse_interval: float
    glimpse_pixels: int

    def run(self, allocate: Allocate) -> Iterator[Seconds | Glimpse]:
        """Fill an array with every batch and give its times; fill another with every glimpse as it comes by."""
        with open_video(self.path, rough=self.rough) as reader:
            convert = Converter(self.width, self.height, reader.info.rotation, rough=self.rough)
            enlarge = Converter(*self._glimpse_size(reader.info), reader.info.rotation, rough=self.rough)
            next_glimpse = self.start + self.glimpse_interval / 2
            rgb: list[NDArray[np.uint8]] = []
            seconds: list[float] = []
            for index, picture in enumerate(reader.pictures_from(self.start)):
                if self.end is not None and picture.seconds >= self.end:
                    break
                if picture.seconds >= next_glimpse:
                    seen_HWC = enlarge(picture.frame)
                    allocate((1, *seen_HWC.shape))[0] = seen_HWC
                    yield Glimpse(picture.seconds)
                    while next_glimpse <= picture.seconds:
                        next_glimpse += self.glimpse_interval
                if index % self.stride:
                    continue
                rgb.append(convert(picture.frame))
                seconds.append(picture.seconds)
                if len(rgb) == self.batch:
                    yield self._hand_over(rgb, seconds, allocate)
                    rgb, seconds = [], []
            if rgb:
                yield self._hand_over(rgb, seconds, allocate)

    def _glimpse_size(self, info: VideoInfo) -> tuple[int, int]:
        limits = {"min_pixels": 1, "max_pixels": self.glimpse_pixels, "factor": 2}
        return frame_size(info.width, info.height, source=self.path, **limits)

    def _hand_over(self, rgb: list[NDArray[np.uint8]], seconds: list[float], allocate: Allocate) -> Seconds:
        np.stack(rgb, out=allocate((len(rgb), self.height, self.width, 3)))
        return np.array(seconds)


Job = Probe | Read | Stream
