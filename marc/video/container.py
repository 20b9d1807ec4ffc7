"""What a file says of its video before anything is decoded: its streams, its headers, its packets.

None of the three is right by itself. A header's length leaves out a last picture that is held, an average rate is that
of the container's clock, a tag may be damaged; packets cost a reading. `marc.video.decoding` puts them together.

Times of this module are on the file's own clock, in seconds.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from marc.video import animations, avi, formats
from marc.video.errors import VideoError
from marc.video.limits import beyond, current_limits, out_of_memory

UNINDEXED = {"seekable": "0"}
"""What keeps FFmpeg from an index at the end of a file."""
SHORTER = 0.9
REORDERED = 32
"""Packets at the end of a stream among which its last picture is: codecs reorder by 16 at most."""
NEAR = 1.0
TAG_SLACK = 1.0
NEW_CLOCK = 1.0
"""Seconds by which times must fall back for a file to be several, one behind another."""
PLACES, HALVES = 32, 5
"""At which a file is looked into for that, and further ones, each half as far from its end as the one before."""

Span = tuple[float, float] | None


@dataclass(frozen=True)
class Schedule:
    """The pictures of a stream as its packets announce them.

    Attributes:
        starts: When they are shown, in order; those without a time are left out.
        end: When the last of them ends; 0 if none has a time.
        count: How many there are, without those at the end that were not read.
        is_whole: Whether all packets were read.
    """

    starts: tuple[float, ...]
    end: float
    count: int
    is_whole: bool

    @property
    def stands_still(self) -> bool:
        """Whether all pictures are said to be shown at one instant, so that their times mean nothing."""
        return self.count > 2 and bool(self.starts) and self.starts[0] == self.starts[-1]


def open_container(path: str, options: dict[str, str] | None = None) -> InputContainer:
    """Open a file, whatever its tags are written in; what it refers to is not.

    Args:
        path: Name of the file.
        options: FFmpeg's, by name, beside `formats.OPTIONS`.

    Raises:
        VideoError: FFmpeg cannot, or it is of a format that is not meant to be read.
    """
    options = formats.OPTIONS | (options or {})
    try:
        container = av.open(_url(path), "r", options=options, metadata_errors="replace")
        if not has_true_index(path, container):
            container.close()
            return av.open(_url(path), "r", options=options | UNINDEXED, metadata_errors="replace")
        if container.format.name != animations.FORMAT:
            return container
        container.close()
        return av.open(animations.as_video(path), "r", options=options)
    except MemoryError as error:
        raise out_of_memory(path) from error
    except av.FFmpegError as error:
        raise VideoError(f"{path}: {_why_not_opened(path) or _cannot_open(error.strerror)}") from error


def has_true_index(path: str, container: InputContainer) -> bool:
    """Whether the index of an open file can be believed, as far as that must be asked: see `marc.video.avi`."""
    return container.format.name != "avi" or all(
        avi.has_true_index(path, stream.index, stream.frames) for stream in container.streams.video
    )


def _cannot_open(cause: str | None) -> str:
    advice = "it is not a video, or it was cut off before its index: get or encode it again"
    return f"FFmpeg cannot open it ({cause}); {advice}"


def _url(path: str) -> str:
    """An address that FFmpeg takes for a file whatever characters the name holds."""
    return f"file:{os.path.abspath(path)}"


def _why_not_opened(path: str) -> str:
    """What FFmpeg logs when it fails to open a file: the cause, where the error code says only "invalid data"."""
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as records, av.open(_url(path), options=formats.OPTIONS):
            return ""
    except av.FFmpegError:
        refused = next((name for _, name, message in records if message.startswith("Format not on whitelist")), None)
        log = "; ".join(message.strip() for _, _, message in records)
        return formats.refusal(refused) if refused else log and _cannot_open(log)
    finally:
        av.logging.set_level(None)


def video_streams(container: InputContainer) -> list[VideoStream]:
    """The streams of moving pictures; a cover picture is none."""
    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def default_stream(path: str, container: InputContainer) -> VideoStream:
    """The first stream flagged as default that is not clearly shorter than another such one; else the first.

    Raises:
        VideoError: There is no video, none that FFmpeg has a decoder for, or its pictures are too large.
    """
    streams = video_streams(container)
    if not streams:
        if container.streams.video:
            raise VideoError(f"{path}: the only picture in it is a cover; give a file with moving pictures")
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise VideoError(
            f"{path}: there is no video stream in it (streams: {kinds}); give a file with moving pictures"
        )
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise VideoError(f"{path}: its video is of a codec that FFmpeg does not know; encode it again, as H.264 say")
    known = [stream for stream in known if stream.codec_context.codec.name in formats.VIDEO_CODECS]
    if not known:
        codecs = ", ".join(stream.codec_context.name for stream in streams if stream.codec_context is not None)
        raise VideoError(f"{path}: its video is of a codec that is not read ({codecs}); encode it again, as H.264 say")
    flagged = [stream for stream in known if stream.disposition & Disposition.default] or known[:1]
    ends = [_stream_end(container, stream) for stream in flagged]
    stream = next(stream for stream, end in zip(flagged, ends, strict=True) if end >= SHORTER * max(ends))
    _check_size(path, stream)
    return stream


def packets(container: InputContainer, stream: Stream) -> Iterator[Packet]:
    """The packets of a stream from where its container stands, and an empty one at the end.

    A transport stream may show another stream later on, as damage does. PyAV then fails behind the last packet.
    """
    with suppress(IndexError):
        yield from container.demux(stream)


def codec_name(stream: VideoStream) -> str:
    """FFmpeg's name of the codec in which the file has its pictures."""
    return stream.metadata.get(animations.CODEC_TAG) or stream.codec_context.codec.canonical_name


def _check_size(path: str, stream: VideoStream) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > current_limits().video_pixels:
        raise beyond(path, f"pictures of {width}x{height}, {width * height} pixels", "video_pixels")


def _stream_end(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration and stream.time_base:
        return max(float(stream.duration * stream.time_base), 0.0)
    return tagged_end(container, stream)


def tagged_end(container: InputContainer, stream: VideoStream) -> float:
    """Matroska's ``DURATION`` tag, the end of a stream; 0 where there is none or the file is shorter as a whole."""
    tag = re.fullmatch(r"(\d+):([0-5]?\d):([0-5]?\d(?:\.\d*)?)", stream.metadata.get("DURATION", ""))
    if tag is None:
        return 0.0
    hours, minutes, seconds = tag.groups()
    end = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    return end if end <= (container.duration or 0) / av.time_base + TAG_SLACK else 0.0


def read_schedule(
    path: str, index: int, interval: float, *, most: int | None = None, joined: bool = False
) -> Schedule:
    """The pictures of a stream by its packets, from the start.

    Args:
        path: Name of the file.
        index: Of the stream.
        interval: Seconds that a picture lasts where its packet does not say.
        most: Stop where there are more than so many; None reads all.
        joined: Let time go on where the clock begins anew.
    """
    with _only(path, index, thoroughly=joined) as (container, stream):
        spans: list[Span] = []
        is_whole = True
        try:
            spans.extend(itertools.islice(_spans(container, stream, interval, joined), most))
        except av.FFmpegError:
            is_whole = False
        return _schedule(spans, container, interval, is_whole=is_whole and len(spans) != most)


def key_frame_times(path: str, index: int) -> list[float]:
    """When the key pictures of a stream are shown, in order, as far as the file can be read."""
    times = []
    with _only(path, index) as (container, stream), suppress(av.FFmpegError):
        for packet in packets(container, stream):
            if packet.is_keyframe and packet.pts is not None and packet.time_base:
                times.append(float(packet.pts * packet.time_base))
    return sorted(times)


def last_end(path: str, index: int, interval: float, near: float) -> float:
    """When the last picture of a stream ends, by the packets at the end of the file; 0 where they do not tell.

    Args:
        path: Name of the file.
        index: Of the stream.
        interval: Seconds that a picture lasts where its packet does not say.
        near: About when the video ends.
    """
    with _only(path, index) as (container, stream):
        target = round(max(near - NEAR, 0.0) / float(stream.time_base or 1))
        entries = stream.index_entries
        if stream.frames > REORDERED and len(entries) == stream.frames:
            target = min(target, entries[-REORDERED].timestamp)
        try:
            container.seek(target, stream=stream, any_frame=True)
            spans = list(_spans(container, stream, interval))
            return _schedule(spans, container, interval, is_whole=False).end
        except av.FFmpegError:
            return 0.0


def is_joined(path: str, index: int) -> bool:
    """Whether a file is several, one behind another, whose clocks begin anew.

    It is looked into at some places, the closer to each other the nearer the end, and read as a whole where those are
    not in order. A part is overlooked that is shorter than the distance between them.
    """
    with _only(path, index) as (container, stream):
        size, times = os.path.getsize(path), list[float]()
        places = [size * place // PLACES for place in range(PLACES)]
        for place in [*places, *(size - size // (PLACES * 2**half) for half in range(1, HALVES + 1))]:
            try:
                container.seek(place, unsupported_byte_offset=True)
            except av.FFmpegError:
                continue
            times += itertools.islice(_decoding_times(container, stream), 1)
    if not _fall_back(times):
        return False
    with _only(path, index, thoroughly=True) as (container, stream):
        return _fall_back(_decoding_times(container, stream))


def _decoding_times(container: InputContainer, stream: VideoStream) -> Iterator[float]:
    """In the order of the packets; they end where the file cannot be read on."""
    with suppress(av.FFmpegError):
        for packet in packets(container, stream):
            if packet.dts is not None and packet.time_base:
                yield float(packet.dts * packet.time_base)


def _fall_back(times: Iterable[float]) -> bool:
    latest = -math.inf
    for time in times:
        if time < latest - NEW_CLOCK:
            return True
        latest = max(latest, time)
    return False


@contextmanager
def _only(path: str, index: int, *, thoroughly: bool = False) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A file opened once more, to read the packets of one stream.

    No picture is looked at if that goes without, unless `thoroughly`: then the order of decoding is known for sure.
    """
    container = open_container(path, None if thoroughly else {"probesize": "32"})
    if not _has_video(container, index):
        container.close()
        container = open_container(path)
    with container:
        stream = container.streams[index]
        assert isinstance(stream, VideoStream)
        yield container, stream


def _has_video(container: InputContainer, index: int) -> bool:
    return len(container.streams) > index and isinstance(container.streams[index], VideoStream)


def _spans(container: InputContainer, stream: VideoStream, interval: float, joined: bool = False) -> Iterator[Span]:
    """When each picture of a stream is shown and until when, in the order of its packets; None: it does not say.

    A picture that lasts one tick of the clock is one whose packet does not say how long it lasts.
    """
    tick, shift, latest = float(stream.time_base or 0), 0.0, -math.inf
    for packet in packets(container, stream):
        if joined and packet.dts is not None:
            if packet.dts * tick + shift < latest - NEW_CLOCK:
                shift = latest + interval - packet.dts * tick
            latest = packet.dts * tick + shift
        if packet.size and packet.pts is None:
            yield None
        elif packet.size and packet.pts is not None:
            start, ticks = packet.pts * tick + shift, packet.duration or 0
            yield start, start + (ticks * tick if ticks > 1 else max(interval, tick))


def _schedule(spans: Sequence[Span], container: InputContainer, interval: float, *, is_whole: bool) -> Schedule:
    timed = [span for span in spans if span is not None]
    end = max((end for _, end in timed), default=0.0)
    if is_mp4(container) and any(later < earlier for earlier, later in pairwise(timed)):
        end = min(end, max(timed)[0] + interval)  # what a packet states is how long until the next one is decoded
    return Schedule(tuple(sorted(start for start, _ in timed)), end, len(spans), is_whole)


def is_mp4(container: InputContainer) -> bool:
    """Whether a file is of the family of MP4 and QuickTime, whose tracks state their own length."""
    return container.format.name.startswith("mov,")
