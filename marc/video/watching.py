"""Sources that do not end, read in the decoding process: addresses that FFmpeg reads, and cameras.

What comes is handed over at once, in two sizes: every picture small, and some of a second in full. FFmpeg is told
which protocols it may follow: those of networks, never files. Whoever answers at an address decides what else is
fetched, by redirection or in a playlist.

Shapes: T frames, H height, W width, C = 3 colours.
"""

from __future__ import annotations

import math
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from marc.video import formats
from marc.video.decoders import Converter
from marc.video.errors import VideoError
from marc.video.limits import beyond, current_limits

PROTOCOLS = {
    "http": "http,tcp,crypto",
    "https": "http,https,tls,tcp,crypto",
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsp,rtp,udp,tcp,tls",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,rtmp,tls,tcp",
    "udp": "udp",
    "rtp": "rtp,udp",
    "srt": "srt",
    "tcp": "tcp",
}
"""Kinds of addresses, and the protocols that FFmpeg may use for each."""
STREAMED = ("hls", "rtsp", "rtp", "mpjpeg")
"""Formats of sources that are no files."""
WITHOUT_CLOCK = ("mpjpeg",)
"""Formats that tell no times; FFmpeg counts 25 pictures a second, whenever they come."""
LEAST_STEP = 1e-3
"""Seconds between two pictures that come at once."""
CAMERA = "v4l2"
BATCH = 4
"""Small pictures handed over at a time, at most."""
USUAL_RATE = 25.0
_SMALL, _WHOLE = 0, 1
Seconds: TypeAlias = NDArray[np.float64]
Allocate: TypeAlias = Callable[[tuple[int, int, int, int]], NDArray[np.uint8]]


@dataclass(frozen=True)
class Opened:
    """What a source says of itself.

    Attributes:
        rate: Pictures per second; 0: it does not say.
        is_finite: Whether it is a recording, which has an end.
    """

    rate: float
    is_finite: bool


@dataclass(frozen=True)
class Watch:
    """Read a source until it ends or fails.

    Attributes:
        path: Its address, or the device of a camera.
        size: Width and height of the small pictures.
        interval: Seconds between pictures in full size.
        timeout: Seconds after which FFmpeg gives up an address that says nothing.
    """

    path: str
    size: tuple[int, int]
    interval: float
    timeout: float

    def run(self, allocate: Allocate) -> Iterator[Opened | tuple[int, Seconds]]:
        """Say what was opened; then fill an array with every batch, and give its kind (0: small) and times."""
        with _open(self.path, self.timeout) as container:
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"
            stream.codec_context.options = {"max_pixels": str(current_limits().video_pixels)}
            rate = float(stream.guessed_rate or 0)
            yield Opened(rate, bool(container.duration) and bool(stream.duration or stream.frames))
            batch, kept_at = _Batch(self.size), -math.inf
            for frame, second in _pictures(self.path, container, rate):
                batch.add(frame, second)
                if not kept_at <= second < kept_at + self.interval:
                    kept_at = second
                    yield from batch.hand_over(allocate)
                    yield _WHOLE, _fill(allocate, [Converter(*_even(frame), 0)(frame)], [second])
                elif len(batch) == BATCH:
                    yield from batch.hand_over(allocate)
            yield from batch.hand_over(allocate)


class _Batch:
    """Small pictures that have not been handed over."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._convert = Converter(*size, 0, rough=True)
        self._rgb: list[NDArray[np.uint8]] = []
        self._seconds: list[float] = []

    def __len__(self) -> int:
        return len(self._rgb)

    def add(self, frame: VideoFrame, second: float) -> None:
        self._rgb.append(self._convert(frame))
        self._seconds.append(second)

    def hand_over(self, allocate: Allocate) -> Iterator[tuple[int, Seconds]]:
        if self._rgb:
            rgb, seconds = self._rgb, self._seconds
            self._rgb, self._seconds = [], []
            yield _SMALL, _fill(allocate, rgb, seconds)


def _fill(allocate: Allocate, rgb: list[NDArray[np.uint8]], seconds: list[float]) -> Seconds:
    height, width = rgb[0].shape[:2]
    np.stack(rgb, out=allocate((len(rgb), height, width, 3)))
    return np.array(seconds)


def _even(frame: VideoFrame) -> tuple[int, int]:
    return max(2, frame.width // 2 * 2), max(2, frame.height // 2 * 2)


@contextmanager
def _open(path: str, timeout: float) -> Iterator[InputContainer]:
    """Opens a source with a video in it.

    Raises:
        VideoError: It cannot be opened or read, or is of a kind that is not meant to be.
    """
    try:
        if is_address(path):
            with av.open(path, "r", options=_options(path), timeout=timeout, metadata_errors="replace") as container:
                yield _with_video(path, container)
        else:
            with av.open(path, "r", format=CAMERA) as container:
                yield _with_video(path, container)
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: the source cannot be read ({error.strerror}); is it there?") from error


def _with_video(path: str, container: InputContainer) -> InputContainer:
    if not container.streams.video or container.streams.video[0].codec_context is None:
        raise VideoError(f"{path}: there is no video in this source that can be read; name one with moving pictures")
    return container


def _options(address: str) -> dict[str, str]:
    return formats.OPTIONS | {
        "format_whitelist": ",".join((*formats.CONTAINERS, *STREAMED, *formats.SOUNDS)),
        "protocol_whitelist": PROTOCOLS[urlsplit(address).scheme.lower()],
    }


def _pictures(path: str, container: InputContainer, rate: float) -> Iterator[tuple[VideoFrame, float]]:
    """Pictures and the times that the source gives them; those without one are counted on.

    Where a format tells no times at all, a picture's time is when it comes, since the first one.
    """
    most, untimed, began = current_limits().video_pixels, 0.0, None
    has_clock = container.format.name not in WITHOUT_CLOCK
    for frame in container.decode(video=0):
        if frame.width * frame.height > most:
            raise beyond(path, f"a picture of {frame.width}x{frame.height} pixels", "video_pixels")
        came = time.monotonic()
        began = came if began is None else began
        if has_clock:
            second = untimed if frame.pts is None else float(frame.time)
            untimed = second + 1 / (rate or USUAL_RATE)
        else:
            second = max(untimed, came - began)
            untimed = second + LEAST_STEP
        yield frame, second


def is_address(source: str) -> bool:
    """Whether a source is the address of something on a network, rather than a file or a device."""
    return "://" in source


def shown(source: str) -> str:
    """A source without what may be secret in its address, for names, messages and what is written.

    That is a name and password before the host, and everything behind the path.
    """
    if not is_address(source):
        return source
    parts = urlsplit(source)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def check_address(source: str) -> None:
    """Refuse an address of a kind that is not read, or none; it is not repeated, as it may hold a password.

    Raises:
        VideoError: Naming the kinds that are read, or saying how an address is written.
    """
    kind = source.partition("://")[0].lower()
    if kind not in PROTOCOLS:
        raise VideoError(f"addresses of the kind {kind}:// are not read, only {', '.join(PROTOCOLS)}")
    try:
        _ = urlsplit(source).port
    except ValueError as error:
        raise VideoError(
            f"{kind}://…: host and port of this address cannot be told; in a name or password write / as %2F, ? as "
            "%3F, # as %23, [ as %5B, ] as %5D"
        ) from error


def is_camera(source: str) -> bool:
    """Whether a source is the device of a camera."""
    try:
        return stat.S_ISCHR(Path(source).stat().st_mode)
    except (OSError, ValueError):
        return False
