"""What can be asked of the decoding process: describe a file, read frames of it or its subtitles, read all of it once.

A job is a frozen record that travels to the process and is run there; it may raise `VideoError`. Frames are written
into memory that both sides map (`Allocate`), so that no picture is copied on its way.

Shapes: T frames, H height, W width, C = 3 colours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from marc.types import VideoInfo
from marc.video.decoders import Converter, decoder
from marc.video.decoding import Picture, VideoReader, open_video
from marc.video.picture_files import decode, is_still, shown_size
from marc.video.requests import FrameRequest, LeftOut
from marc.video.sampling import frame_size, sample_times
from marc.video.skimming import Skimmer, Skipped, can_skim
from marc.video.subtitle_tracks import Cue, Track, read_text_file, read_track
from marc.video.watching import Watch

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
class KeyFrames:
    """Find a file's key frames; see `marc.video.key_frame_seconds`."""

    path: str

    def run(self, allocate: Allocate) -> Iterator[tuple[float, ...]]:
        """Give their times."""
        with open_video(self.path) as reader:
            yield tuple(reader.key_frames())


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
                reader.width,
                reader.height,
                min_pixels=self.min_pixels,
                max_pixels=self.max_pixels,
                factor=self.factor,
                source=self.path,
            )
            rgb_THWC = allocate((len(seconds_T), height, width, 3))
            yield decoder(self.backend)(reader, seconds_T, rgb_THWC)


@dataclass(frozen=True)
class Stream:
    """Read all that is shown in ``[start, end)`` once, for several requests; see `marc.video.read_to`."""

    path: str
    requests: tuple[FrameRequest, ...]
    start: float = 0.0
    end: float | None = None
    rough: bool = False
    skims: bool = False

    def run(self, allocate: Allocate) -> Iterator[tuple[int, Seconds] | LeftOut]:
        """Fill an array with every batch of any request; give the number of the request and the batch's times."""
        with open_video(self.path, rough=self.rough) as reader:
            batches = [_Batch(request, reader.info, self) for request in self.requests]
            for event in self._events(reader):
                if isinstance(event, Skipped):
                    for number, batch in enumerate(batches):
                        yield from ((number, batch.hand_over(allocate)) for _ in batch.pass_over(event))
                    yield event.frames
                    continue
                if self.end is not None and event.seconds >= self.end:
                    break
                for number, batch in enumerate(batches):
                    if batch.add(event):
                        yield number, batch.hand_over(allocate)
            for number, batch in enumerate(batches):
                if len(batch):
                    yield number, batch.hand_over(allocate)

    def _events(self, reader: VideoReader) -> Iterator[Picture | Skipped]:
        skims = self.skims and can_skim(reader)
        events = Skimmer(reader).pictures() if skims else reader.pictures_from(self.start)
        return reader.as_shown(events) if any(request.takes_held for request in self.requests) else iter(events)


class _Batch:
    """The frames of one request that have not been handed over."""

    def __init__(self, request: FrameRequest, info: VideoInfo, stream: Stream) -> None:
        self._wants = request.chooser(stream.start)
        self._convert = Converter(*request.size(info), info.rotation, rough=stream.rough)
        self._takes_held, self._takes_stand_ins = request.takes_held, request.takes_stand_ins
        self._limit = request.batch
        self._converted: tuple[object, NDArray[np.uint8]] | None = None
        self._rgb: list[NDArray[np.uint8]] = []
        self._seconds: list[float] = []

    def __len__(self) -> int:
        return len(self._rgb)

    def add(self, picture: Picture) -> bool:
        """Take a picture if it is wanted; whether the batch is full now."""
        if (picture.is_held and not self._takes_held) or not self._wants(picture.seconds):
            return False
        self._take(picture.frame, picture.seconds)
        return len(self) == self._limit

    def pass_over(self, skipped: Skipped) -> Iterator[None]:
        """Take one picture for others that were left out, or none of them; stops where a batch is to be handed over.

        Somebody who wants a picture now and then gets it. For who wants all of them, a batch ends here.
        """
        if not self._takes_stand_ins:
            if len(self):
                yield
            return
        for seconds in skipped.frames.seconds.tolist():
            if self._wants(seconds):
                self._take(skipped.stand_in, seconds)
                if len(self) == self._limit:
                    yield

    def _take(self, frame: VideoFrame, seconds: float) -> None:
        if self._converted is None or self._converted[0] is not frame:
            self._converted = frame, self._convert(frame)
        self._rgb.append(self._converted[1])
        self._seconds.append(seconds)

    def hand_over(self, allocate: Allocate) -> Seconds:
        """Fill an array with the frames, give their times, and begin anew."""
        height, width = self._rgb[0].shape[:2]
        np.stack(self._rgb, out=allocate((len(self), height, width, 3)))
        seconds_T = np.array(self._seconds)
        self._rgb, self._seconds = [], []
        return seconds_T


@dataclass(frozen=True)
class ReadSubtitles:
    """Read the subtitles of `video` from the text file `path`, or where both are the same, from a track in it."""

    path: str
    video: str

    def run(self, allocate: Allocate) -> Iterator[Track | list[Cue]]:
        """Say what is read, then give its cues."""
        return read_track(self.video) if self.path == self.video else read_text_file(self.path, self.video)


@dataclass(frozen=True)
class LookAtPicture:
    """Say whether a file is a still picture."""

    path: str

    def run(self, allocate: Allocate) -> Iterator[bool]:
        """Give the answer."""
        yield is_still(self.path)


@dataclass(frozen=True)
class MeasurePicture:
    """Tell the size of a picture as it is shown."""

    path: str

    def run(self, allocate: Allocate) -> Iterator[tuple[int, int]]:
        """Give width and height."""
        yield shown_size(self.path)


@dataclass(frozen=True)
class ReadPicture:
    """Read a picture, at `size` (width, height) where that is given; see `marc.video.pictures.read_picture`."""

    path: str
    size: tuple[int, int] | None = None

    def run(self, allocate: Allocate) -> Iterator[None]:
        """Fill an array ``[1, H, W, 3]`` with it."""
        image = decode(self.path, self.size)
        allocate((1, image.height, image.width, 3))[0] = np.asarray(image)
        yield None


Job = Probe | KeyFrames | Read | Stream | ReadSubtitles | LookAtPicture | MeasurePicture | ReadPicture | Watch
