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
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeVar, cast

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from marc.types import VideoInfo
from marc.video.container import (
    NEW_CLOCK,
    Schedule,
    codec_name,
    default_stream,
    has_true_index,
    is_joined,
    is_mp4,
    key_frame_times,
    last_end,
    open_container,
    packets,
    read_schedule,
    tagged_end,
    video_streams,
)
from marc.video.errors import VideoError
from marc.video.limits import beyond, current_limits, out_of_memory

MAX_DECODER_THREADS = 8
DEFAULT_RATE = 25.0
TIME_TOLERANCE = 1e-3
REORDERED_CODECS = ("h264", "hevc")
FORMATS_WITH_GAPS_IN_TIMES = ("mpeg",)
TIMED_FORMATS = ("mov,", "matroska,", "mpegts", "flv")
"""Beginnings of the names of the containers whose packets say when their pictures are shown."""
FORMATS_THAT_CAN_BE_JOINED = ("mpeg", "mpegts")
TOLD_BY_CONTAINERS = ("width", "height", "pix_fmt", "color_range", "colorspace", "color_primaries", "color_trc")
"""What a stream's decoder may know from the container alone."""
MISSING_END = 1.0
MOST_LISTED = 1024
"""Pictures of a video that may be listed by their packets: some 10 ms."""
FEW = 64
FEWER, UNEVEN = 0.9, 1.5
MOST_HELD = 10.0
HALF = 0.5
HOUR = 3600.0
GIB = 2**30


Other = TypeVar("Other")


@dataclass(frozen=True)
class Picture:
    """A decoded frame, not yet converted, and when it is shown (seconds since the first picture)."""

    frame: VideoFrame
    seconds: float
    is_held: bool = False
    """Whether it has been given before and is still shown."""


class Decoded:
    """What a reading has decoded, held to the limits.

    Args:
        path: The file.

    Attributes:
        frames: How many pictures that are.
    """

    def __init__(self, path: str) -> None:
        self._path, self._limits = path, current_limits()
        self.frames, self._bytes = 0, 0

    def count(self, frame: VideoFrame) -> None:
        """Take note of one more picture.

        Raises:
            VideoError: It is one too many.
        """
        self.frames += 1
        self._bytes += sum(plane.buffer_size for plane in frame.planes)
        if self.frames > self._limits.frames:
            raise beyond(self._path, f"{self.frames} pictures were decoded", "frames")
        if self._bytes > self._limits.decoded_gib * GIB:
            raise beyond(self._path, f"{self._bytes / GIB:.2f} GiB were decoded", "decoded_gib")
        if frame.width * frame.height > self._limits.video_pixels:
            found = f"a picture of {frame.width}x{frame.height}, {frame.width * frame.height} pixels"
            raise beyond(self._path, found, "video_pixels")

    def reach(self, seconds: float) -> None:
        """Take note of a time that the video has, or says that it has.

        Raises:
            VideoError: It is too late.
        """
        if seconds > self._limits.hours * HOUR:
            raise beyond(self._path, f"a video of {seconds / HOUR:.1f} hours", "hours")


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
    except MemoryError as error:
        raise out_of_memory(path) from error
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
        path: Name of the file.
        width: Of the pictures as they are shown, in pixels.
        height: Likewise.
        rotation: Clockwise degrees by which the stored pictures are turned to be shown.
        tolerance: A time this close before a picture counts as its own, in seconds: one tick of the file's clock.
        stream_index: Which of the file's streams it is.
        has_other_videos: Whether the file holds more than one video.
        decoded: What has been decoded, held to the limits.
    """

    def __init__(self, path: str, *, rough: bool = False) -> None:
        self.path = path
        self._rough = rough
        self._zero: float | None = None
        self._patience = 0.5
        self.decoded = Decoded(path)
        self._open()
        if self._following is None:
            raise VideoError(f"{path}: its video stream holds no picture that can be decoded; get or encode it again")
        format_name = self._container.format.name
        self._is_joined = format_name in FORMATS_THAT_CAN_BE_JOINED and is_joined(path, self._stream.index)
        self._can_seek = not self._is_joined and format_name not in FORMATS_WITH_GAPS_IN_TIMES
        self._can_seek &= has_true_index(path, self._container)
        self.tolerance = min(float(self._stream.time_base or 0), TIME_TOLERANCE)
        self.stream_index = self._stream.index
        self.has_other_videos = len(video_streams(self._container)) > 1
        first = self._following.frame
        self.rotation = round(-first.rotation / 90) * 90 % 360
        self.width, self.height = first.width, first.height
        if self.rotation in (90, 270):
            self.width, self.height = first.height, first.width

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
        self._open_stream()
        self._start_decoding()

    def _open_stream(self) -> None:
        self._container = open_container(self.path)
        self._stream = default_stream(self.path, self._container)
        codec = self._stream.codec_context.codec.canonical_name
        self._has_times = self._container.format.name != "avi" or codec not in REORDERED_CODECS
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.options = decoder_options(rough=self._rough)
        self._stream.codec_context.thread_count = min(os.cpu_count() or 1, MAX_DECODER_THREADS)
        self._interval = 1 / float(self._stream.guessed_rate or DEFAULT_RATE)

    def _start_decoding(self) -> None:
        self._latest: float | None = None
        self._shift = 0.0
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
            VideoError: A time lies in a part that is missing from the file, or the file's times contradict each other.
        """
        latest = 0.0
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
            if self._shown.seconds < latest:
                raise VideoError(
                    f"{self.path}: its times contradict each other: {self._shown.seconds:.2f} s comes after "
                    f"{latest:.2f} s; the file is damaged, get or encode it again"
                )
            latest = self._shown.seconds
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

    @property
    def tells_packet_times(self) -> bool:
        """Whether packets say when their pictures are shown, one after the other, as far as the headers know."""
        is_timed = self._container.format.name.startswith(TIMED_FORMATS)
        return is_timed and self._has_times and self._zero is not None and not (self._is_joined or self._is_cut())

    @property
    def has_new_clock(self) -> bool:
        """Whether the times of the file have fallen back so far, so that its packets do not say when they are."""
        return self._shift != 0

    def new_decoder(self) -> VideoCodecContext:
        """Another decoder for packets of the video, for pictures beside those that are read."""
        own = self._stream.codec_context
        decoder = cast(VideoCodecContext, VideoCodecContext.create(own.codec, "r"))
        decoder.extradata = own.extradata
        with suppress(UnicodeDecodeError):  # in a transport stream it is a number
            decoder.codec_tag = own.codec_tag
        for name in TOLD_BY_CONTAINERS:
            if (told := getattr(own, name)) is not None:
                setattr(decoder, name, told)
        decoder.options, decoder.thread_count = decoder_options(rough=False), 1
        return decoder

    def undecoded(self) -> Iterator[Packet]:
        """The packets of the video from the first one on, for `pictures_of`; nothing else can be read meanwhile."""
        self._container.close()
        self._open_stream()
        self._latest, self._shift = None, 0.0
        yield from packets(self._container, self._stream)

    def rest(self, back_to: float = math.inf) -> Iterator[Picture]:
        """The pictures that the decoder still holds.

        Args:
            back_to: When the picture is shown of which the next packet may be: a key picture, perhaps one that was
                given before. That the time falls back to it is then no new clock.
        """
        assert self._stream.time_base is not None
        end = Packet()
        end.stream, end.time_base = self._stream, self._stream.time_base
        yield from self.pictures_of(end)
        self._stream.codec_context.flush_buffers()
        if self._latest is not None and not self.has_new_clock:
            self._latest = min(self._latest, back_to - self._interval)

    def ticks(self, seconds: float) -> float:
        """A length of time in ticks of the stream."""
        return seconds / float(self._stream.time_base or 1)

    def seconds_at(self, ticks: int) -> float:
        """A time of the stream in seconds since the first picture."""
        tick = self._stream.time_base
        return (ticks * tick.numerator / tick.denominator if tick else 0.0) - self.first_seconds

    def seconds_of(self, ticks_N: NDArray[np.int64]) -> NDArray[np.float64]:
        """Times of the stream in seconds since the first picture."""
        tick = self._stream.time_base
        assert tick is not None
        seconds_N: NDArray[np.float64] = ticks_N * tick.numerator / tick.denominator - self.first_seconds
        return seconds_N

    def as_shown(self, events: Iterable[Picture | Other]) -> Iterator[Picture | Other]:
        """Pictures in order, but one that stays is given again as often as at a constant rate.

        That is the nominal rate of the file, or that of its shortest picture, at most `MOST_HELD` a second. At a
        constant rate nothing is added.

        Args:
            events: The pictures. Nothing is given again where something else stands between them.
        """
        spacing = max(self._nominal_interval(), 1 / MOST_HELD)
        shown: Picture | None = None
        for event in events:
            if shown is not None and isinstance(event, Picture):
                yield from _held(shown, event.seconds, spacing)
            yield event
            shown = event if isinstance(event, Picture) else None
        if shown is not None:
            yield from _held(shown, self.info.duration, spacing)

    def key_frames(self) -> list[float]:
        """When the pictures are shown that are decoded by themselves, by the packets: no picture is decoded for it.

        There are none where the file cannot be sought in, or states no times.
        """
        if not self._can_seek or not self._has_times or self._zero is None:
            return []
        times = (self._since_first(time) for time in key_frame_times(self.path, self.stream_index))
        return [max(time, 0.0) for time in times if time >= -self.tolerance]

    def _nominal_interval(self) -> float:
        """Seconds from one picture to the next where none stays for longer than others."""
        info = self.info
        if info.starts:
            return min(self._interval, *(later - earlier for earlier, later in pairwise(info.starts)))
        return 1 / info.fps if info.frame_count <= MOST_LISTED else self._interval

    def _advance(self) -> None:
        self._shown, self._following = self._following, next(self._pictures, None)

    def _decode(self) -> Generator[Picture, None, None]:
        """Pictures from where the container stands; packets before the first decodable one may be incomplete."""
        for packet in packets(self._container, self._stream):
            yield from self.pictures_of(packet)

    def pictures_of(self, packet: Packet) -> Iterator[Picture]:
        """The pictures that the decoder has finished when it is given the next packet.

        A raw stream stores no times, an AVI file none that survive reordering, and some files the same for all: there
        the pictures are counted. An MPEG program stream stores some, and those between are only right when decoding
        began at the start. Where the clock begins anew, because files were joined byte by byte, time goes on.
        """
        try:
            frames = packet.decode()
        except av.InvalidDataError as error:
            if self._latest is None:
                return
            if self._is_cut():
                raise self._cut_error(self._latest) from error
            raise
        for frame in frames:
            self.decoded.count(frame)
            self._latest = self._later(self._seconds_of(frame))
            self.decoded.reach(self._latest)
            yield Picture(frame, self._latest)

    def _later(self, seconds: float | None) -> float:
        """When the picture is shown that comes after the latest one and has this time on the file's clock."""
        if self._latest is None:
            return seconds or 0.0
        if seconds is None:
            return self._latest + self._interval
        if seconds + self._shift < self._latest - NEW_CLOCK:
            self._shift = self._latest + self._interval - seconds
            return self._latest + self._interval
        if seconds + self._shift <= self._latest and self._stands_still:
            self._has_times = False
            return self._latest + self._interval
        return max(seconds + self._shift, self._latest)

    def _seconds_of(self, frame: VideoFrame) -> float | None:
        """When a picture is shown by the file's clock; None where it does not say."""
        if frame.pts is None or not self._has_times:
            return None
        if self._zero is None:
            self._zero = frame.time
        return frame.time - self._zero

    @cached_property
    def _stands_still(self) -> bool:
        return self._schedule(FEW).stands_still

    def _gains_by_seeking(self, time: float) -> bool:
        """Whether a key picture lies between here and `time`, as far as the index or else experience tells."""
        if not self._can_seek or self._zero is None or not self._has_times:
            return False
        if self._following is None or time <= self._following.seconds + self._interval:
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
            if self._begins_rightly():
                return
            self._can_seek = False
        self._container.close()
        self._open()

    def _begins_rightly(self) -> bool:
        """Whether the picture where a seek has landed is a key picture, where only the index says so."""
        is_told_by_index = self._container.format.name == "avi"
        return not is_told_by_index or self._following is None or bool(self._following.frame.key_frame)

    def _move(self, time: float) -> bool:
        """Seek in the container; False where that fails."""
        try:
            self._container.seek(self._timestamp(time), stream=self._stream)
        except av.FFmpegError:
            return False
        return True

    def _check_complete(self) -> None:
        assert self._shown is not None
        frame = self._shown.frame
        self.check_last(self._shown.seconds, float((frame.duration or 0) * (frame.time_base or 0)))

    def check_last(self, seconds: float, lasts: float = 0.0) -> None:
        """Refuse to take the last picture of a file that was cut off for the end of its video.

        Args:
            seconds: When it is shown.
            lasts: How long it says that it is.

        Raises:
            VideoError: The video goes on.
        """
        end = seconds + max(lasts, self._interval)
        if self._is_cut() or tagged_end(self._container, self._stream) - self.first_seconds > end + MISSING_END:
            raise self._cut_error(end)

    def _is_cut(self) -> bool:
        """Whether the index speaks of bytes behind the end of the file."""
        entries = self._stream.index_entries
        return len(entries) > 0 and entries[-1].pos + entries[-1].size > self._container.size

    def _cut_error(self, end: float) -> VideoError:
        readable = math.floor(100 * end) / 100
        return VideoError(
            f"{self.path}: the file is cut off after {readable:.2f} s of a {self.info.duration:.2f} s video; get it "
            f"again, or read only what is there (end={readable:.2f})"
        )

    @cached_property
    def info(self) -> VideoInfo:
        """What `marc.video.probe` tells about the file; its length may take a look at its packets."""
        count, duration, starts = self._extent()
        self.decoded.reach(duration)
        codec, rate = codec_name(self._stream), count / duration
        return VideoInfo(self.path, self.width, self.height, duration, rate, count, codec, self.rotation, starts)

    def _extent(self) -> tuple[int, float, tuple[float, ...]]:
        """How many pictures there are, when the last one ends, and when each starts if they are few and uneven.

        Headers and packets are put together: where they differ by less than half a picture, the header is right (its
        clock may be finer), else the packets (it may leave out a picture that is held).
        """
        stream, stated = self._stream, self._stated_duration()
        is_listed = self._has_times and stream.frames <= MOST_LISTED and not self._is_cut()
        schedule = self._schedule(MOST_LISTED + 1) if is_listed else None
        if schedule is not None and schedule.stands_still:
            self._has_times, self._zero = False, None
        if self._zero is None or self._is_joined:
            return *self._measure(), ()
        starts = self._known_starts(schedule)
        if schedule is not None and starts:
            end = self._since_first(schedule.end)
        elif stated and self._rate():
            end = self._end_by_packets(stated)
        else:
            return *self._measure(), ()
        if tagged_end(self._container, stream) or (is_mp4(self._container) and stated > end + self._interval):
            end = max(end, stated)
        duration = end if end > 0 and abs(end - stated) > self._interval / 2 else stated
        count = round(duration * self._rate())
        if starts and not (stated and count and len(starts) >= FEWER * duration / self._interval):
            return len(starts), duration, starts if _are_uneven(starts, duration) else ()
        if stream.frames and (abs(stream.frames - count) <= 1 or stream.frames == len(starts)):
            count = stream.frames
        return max(count, 1), duration, ()

    def _known_starts(self, schedule: Schedule | None) -> tuple[float, ...]:
        """When each picture starts, since the first one; none if not all are known."""
        if schedule is None or not schedule.is_whole:
            return ()
        starts = [self._since_first(start) for start in sorted(set(schedule.starts))]
        return tuple(start if start > self.tolerance else 0.0 for start in starts if start >= -self.tolerance)

    def _rate(self) -> float:
        """Pictures a second by the headers; an average that cannot be is that of the file's clock."""
        average, guessed = (float(rate or 0) for rate in (self._stream.average_rate, self._stream.guessed_rate))
        return guessed if 0 < 2 * guessed < average else average

    def _stated_duration(self) -> float:
        """Length of the video in seconds by the file's headers; 0 where they do not tell."""
        if self._zero is None:
            return 0.0
        stream, tick = self._stream, self._stream.time_base or 0
        if stream.duration:
            late = 0 if stream.start_time is None else stream.start_time - self._timestamp(0.0)
            return max(float((stream.duration + late) * tick), 0.0)
        end = tagged_end(self._container, stream) or (self._container.duration or 0) / av.time_base
        return max(end - self._zero, 0.0)

    def _end_by_packets(self, stated: float) -> float:
        """Seconds at which the last picture ends; 0 where a tag of the file has told already, or it is cut off."""
        if self._is_cut() or tagged_end(self._container, self._stream):
            return 0.0
        end = last_end(self.path, self.stream_index, self._interval, self.first_seconds + stated)
        return self._since_first(end)

    def _since_first(self, time: float) -> float:
        """A time of the file's clock as seconds since the first picture, without the last digits of the difference."""
        return round(time - self.first_seconds, 12)

    def _schedule(self, most: int | None = None) -> Schedule:
        return read_schedule(self.path, self.stream_index, self._interval, most=most, joined=self._is_joined)

    def _measure(self) -> tuple[int, float]:
        """Number of pictures and length of the video, from all its packets; nothing is decoded."""
        schedule = self._schedule()
        count, end = max(schedule.count, 1), self._since_first(schedule.end)
        return count, end if self._zero is not None and end > 0 else count * self._interval


def decoder_options(*, rough: bool) -> dict[str, str]:
    """FFmpeg's options of a decoder: how large pictures may be, and what is left out of those that may be `rough`."""
    limits = {"max_pixels": str(current_limits().video_pixels)}
    return limits | {"skip_loop_filter": "noref"} if rough else limits


def _held(picture: Picture, end: float, spacing: float) -> Iterator[Picture]:
    """A picture again and again until shortly before it ends."""
    for number in range(1, math.ceil((end - picture.seconds) / spacing - HALF)):
        yield Picture(picture.frame, picture.seconds + number * spacing, is_held=True)


def _are_uneven(starts: Sequence[float], duration: float) -> bool:
    """Whether some pictures stay clearly longer than others."""
    if len(starts) < 2 or starts[0] > 0:
        return False
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    return max(*gaps, duration - starts[-1]) > UNEVEN * min(gaps)
