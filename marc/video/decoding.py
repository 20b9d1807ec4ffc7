"""Decoding with PyAV, in this process: open a file, find its video, give its pictures by time or in order.

Times are seconds since the first picture that the file can show, so a stream that starts at 1.4 s starts at 0 here.
The picture *shown* at a time is the last one that starts no later. Exactness rests neither on an index nor on where a
seek lands: a picture is given only once its successor (or the end) has been seen, and a seek that lands too late is
repeated from farther back.

Decoding can hang in C code on a damaged file; `marc.video` therefore runs this module in a process that can be killed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from marc.types import VideoInfo
from marc.video.errors import VideoError

MAX_PICTURE_PIXELS = 2**27
MAX_DECODER_THREADS = 8
DEFAULT_RATE = 25.0
TIME_TOLERANCE = 1e-3
REORDERED_CODECS = ("h264", "hevc")
FORMATS_WITH_GAPS_IN_TIMES = ("mpeg",)
MISSING_END = 1.0


@dataclass(frozen=True)
class Picture:
    """A decoded frame, not yet converted, and when it is shown (seconds since the first picture)."""

    frame: VideoFrame
    seconds: float


@contextmanager
def open_video(path: str, *, rough: bool = False) -> Iterator[VideoReader]:
    """Open a file for reading; FFmpeg's errors, also later ones inside the ``with`` block, become `VideoError`.

    Args:
        path: An existing file.
        rough: See `VideoReader`.

    Yields:
        Its reader, at the start.
    """
    reader = None
    try:
        reader = VideoReader(path, rough=rough)
        yield reader
    except av.FFmpegError as error:
        raise VideoError(
            f"{path}: decoding failed ({error.strerror}); the file is damaged or cut off, get or encode it again"
        ) from error
    finally:
        if reader is not None:
            reader.close()


class VideoReader:
    """The pictures of one video stream, in presentation order.

    Args:
        path: Name of the file.
        rough: Leave out the codec's deblocking filter in pictures that no other picture refers to.

    Attributes:
        info: What `marc.video.probe` tells about the file.
        tolerance: A time this close before a picture counts as its own, in seconds: one tick of the file's clock.
        stream_index: Which of the file's streams it is.
        has_other_videos: Whether the file holds more than one video.
    """

    def __init__(self, path: str, *, rough: bool = False) -> None:
        self._path = path
        self._rough = rough
        self._zero: float | None = None
        self._patience = 0.5
        self._open()
        if self._following is None:
            raise VideoError(f"{path}: its video stream holds no picture that can be decoded; get or encode it again")
        self._can_seek = self._zero is not None and self._container.format.name not in FORMATS_WITH_GAPS_IN_TIMES
        self.tolerance = min(float(self._stream.time_base or 0), TIME_TOLERANCE)
        self.info = self._describe(self._following.frame)
        self.stream_index = self._stream.index
        self.has_other_videos = len(_video_streams(self._container)) > 1

    @property
    def first_seconds(self) -> float:
        """When the first picture is shown, on the file's own clock."""
        return self._zero or 0.0

    @property
    def start_seconds(self) -> float:
        """When the file starts, with a picture or a sound, on its own clock."""
        start = self._container.start_time
        return self.first_seconds if start is None else start / av.time_base

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _open(self) -> None:
        """Open the file at its first picture."""
        self._container = open_container(self._path)
        self._stream = _default_stream(self._path, self._container)
        _check_size(self._path, self._stream)
        codec = self._stream.codec_context.codec.canonical_name
        self._has_times = self._container.format.name != "avi" or codec not in REORDERED_CODECS
        self._stream.thread_type = "AUTO"
        if self._rough:
            self._stream.codec_context.options = {"skip_loop_filter": "noref"}
        self._stream.codec_context.thread_count = min(os.cpu_count() or 1, MAX_DECODER_THREADS)
        self._interval = 1 / float(self._stream.guessed_rate or DEFAULT_RATE)
        self._start_decoding()

    def _start_decoding(self) -> None:
        self._pictures = self._decode()
        self._shown: Picture | None = None
        self._following = next(self._pictures, None)

    def pictures_at(self, seconds: Iterable[float]) -> Iterator[Picture]:
        """The picture shown at each time: the first one before the video starts, the last one after it ends.

        Args:
            seconds: Non-decreasing times.

        Yields:
            One picture per time, the same object again where it is still shown.

        Raises:
            VideoError: A time lies in a part that is missing from the file.
        """
        for time in seconds:
            if self._gains_by_seeking(time):
                self._seek(time)
            while self._following is not None and self._following.seconds <= time + self.tolerance:
                self._advance()
            if self._shown is None:
                self._advance()
            assert self._shown is not None
            if self._following is None and time > self._shown.seconds + MISSING_END:
                self._check_complete()
            yield self._shown

    def pictures_from(self, start: float) -> Iterator[Picture]:
        """Every picture from the one shown at `start` on.

        Raises:
            VideoError: The file ends before its video does; the pictures up to there have been given.
        """
        yield from self.pictures_at([start])
        while self._following is not None:
            self._advance()
            assert self._shown is not None
            yield self._shown
        self._check_complete()

    def _advance(self) -> None:
        self._shown, self._following = self._following, next(self._pictures, None)

    def _decode(self) -> Generator[Picture, None, None]:
        """Pictures from where the container stands; packets before the first decodable one may be incomplete.

        A raw stream stores no times and an AVI file none that survive reordering: there the pictures are counted. An
        MPEG program stream stores some, and those between are only right when decoding began at the start.
        """
        previous: float | None = None
        for packet in self._container.demux(self._stream):
            try:
                frames = packet.decode()
            except av.InvalidDataError as error:
                if previous is None:
                    continue
                if self._is_cut():
                    raise self._cut_error(previous) from error
                raise
            for frame in frames:
                if frame.pts is None or not self._has_times:
                    seconds = 0.0 if previous is None else previous + self._interval
                else:
                    if self._zero is None:
                        self._zero = frame.time
                    seconds = frame.time - self._zero
                previous = seconds if previous is None else max(seconds, previous)
                yield Picture(frame, previous)

    def _gains_by_seeking(self, time: float) -> bool:
        """Whether a key picture lies between here and `time`, as far as the index or else experience tells."""
        if not self._can_seek or self._following is None or time <= self._following.seconds + self._interval:
            return False
        entries = self._stream.index_entries
        target = self._timestamp(time)
        if len(entries) and entries[-1].timestamp > target:
            key = entries.search_timestamp(target)
            return key >= 0 and entries[key].timestamp > self._timestamp(self._following.seconds)
        return time - self._following.seconds > self._patience

    def _timestamp(self, seconds: float) -> int:
        assert self._stream.time_base is not None
        return round((seconds + (self._zero or 0.0)) / float(self._stream.time_base))

    def _seek(self, time: float) -> None:
        """Move to a picture at or before `time`, never farther back than needed to be sure of it."""
        position = self._following.seconds if self._following else 0.0
        back = 0.0
        while True:
            self._restart(time - back)
            if self._following is not None and self._following.seconds <= time + self.tolerance:
                break
            assert back < time, "the first picture is shown at 0 s"
            back = min(max(2 * back, 0.5), time)
        if self._following.seconds <= position:
            self._patience *= 2

    def _restart(self, time: float) -> None:
        """Go on from the key picture before `time`, or from the start where the file cannot be sought in."""
        if time > 0 and self._move(time):
            self._start_decoding()
        else:
            self._container.close()
            self._open()

    def _move(self, time: float) -> bool:
        """Seek in the container; False where that fails."""
        try:
            self._container.seek(self._timestamp(time), stream=self._stream)
        except av.FFmpegError:
            return False
        return True

    def _check_complete(self) -> None:
        """Refuse to take the last picture of a file that was cut off for the end of its video."""
        assert self._shown is not None
        end = self._shown.seconds + self._interval
        if self._is_cut() or _tagged_duration(self._stream) - (self._zero or 0.0) > end + MISSING_END:
            raise self._cut_error(end)

    def _is_cut(self) -> bool:
        """Whether the index speaks of bytes behind the end of the file."""
        entries = self._stream.index_entries
        return len(entries) > 0 and entries[-1].pos + entries[-1].size > os.path.getsize(self._path)

    def _cut_error(self, end: float) -> VideoError:
        readable = math.floor(100 * end) / 100
        return VideoError(
            f"{self._path}: the file is cut off after {readable:.2f} s of a {self.info.duration:.2f} s video; get it "
            f"again, or read only what is there (end={readable:.2f})"
        )

    def _describe(self, first: VideoFrame) -> VideoInfo:
        stream = self._stream
        duration = self._stated_duration()
        count = round(duration * float(stream.average_rate or 0))
        if stream.frames and abs(stream.frames - count) <= 1:
            count = stream.frames
        if not count or not duration:
            count, duration = self._measure()
        rotation = round(-first.rotation / 90) * 90 % 360
        width, height = (first.height, first.width) if rotation in (90, 270) else (first.width, first.height)
        name = stream.codec_context.codec.canonical_name
        return VideoInfo(self._path, width, height, duration, count / duration, count, name, rotation)

    def _stated_duration(self) -> float:
        """Length of the video in seconds by the file's headers; 0 where they do not tell."""
        if self._zero is None:
            return 0.0
        if self._stream.duration:
            return float(self._stream.duration * (self._stream.time_base or 0))
        end = _tagged_duration(self._stream) or (self._container.duration or 0) / av.time_base
        return max(end - (self._zero or 0.0), 0.0)

    def _measure(self) -> tuple[int, float]:
        """Number of pictures and length of the video, from all its packets; nothing is decoded."""
        count, end = 0, 0.0
        with open_container(self._path) as container:
            for packet in container.demux(container.streams[self._stream.index]):
                count += packet.size > 0
                if packet.pts is not None:
                    end = max(
                        end, float((packet.pts + (packet.duration or 0)) * packet.time_base) - (self._zero or 0.0)
                    )
        return max(count, 1), end if self._zero is not None and end > 0 else max(count, 1) * self._interval


def open_container(path: str) -> InputContainer:
    """Open a file without looking for a video in it.

    Raises:
        VideoError: FFmpeg cannot open it.
    """
    try:
        return av.open(_url(path))
    except av.FFmpegError as error:
        raise VideoError(
            f"{path}: FFmpeg cannot open it ({_log_of_opening(path) or error.strerror}); it is not a video, or it was "
            "cut off before its index: get or encode it again"
        ) from error


def _url(path: str) -> str:
    """An address that FFmpeg takes for a file whatever characters the name holds."""
    return f"file:{os.path.abspath(path)}"


def _log_of_opening(path: str) -> str:
    """What FFmpeg logs when it fails to open a file: the cause, where the error code says only "invalid data"."""
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as records, av.open(_url(path)):
            return ""
    except av.FFmpegError:
        return "; ".join(message.strip() for _, _, message in records)
    finally:
        av.logging.set_level(None)


def _video_streams(container: InputContainer) -> list[VideoStream]:
    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def _default_stream(path: str, container: InputContainer) -> VideoStream:
    """The stream flagged as default, else the first; a cover picture is not a video."""
    streams = _video_streams(container)
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise VideoError(
            f"{path}: there is no video stream in it (streams: {kinds}); give a file with moving pictures"
        )
    return next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])


def _check_size(path: str, stream: VideoStream) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PICTURE_PIXELS:
        raise VideoError(f"{path}: pictures of {width}x{height} are too large to decode; scale the video down")


def _tagged_duration(stream: VideoStream) -> float:
    """Matroska's ``DURATION`` tag, the end of a stream on the file's clock in seconds; 0 where there is none."""
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds) if seconds else 0.0
