"""Animated WebP, which FFmpeg's demuxer does not play: Pillow does, and hands it on as a video without loss.

So there is one decoder still: `marc.video.container` opens what is made here, in memory, instead of the file.
"""

from __future__ import annotations

import io
import os
from fractions import Fraction
from functools import lru_cache
from typing import Any

import av
import numpy as np

from marc.video.errors import VideoError
from marc.video.limits import beyond, current_limits

FORMAT = "webp_pipe"
"""FFmpeg's name of the files that are read here."""
MOST_BYTES = 2**30
"""Of an animation as a video in memory."""
TICKS = 1000
"""Of its clock in a second."""
UNSAID = 100
"""Milliseconds that a picture is shown whose duration is 0, as browsers do."""
CODEC_TAG = "SOURCE_CODEC"
"""Tag of the stream that holds its codec before it was handed on."""


def as_video(path: str) -> io.BytesIO:
    """A WebP file as a Matroska file, its pictures as they were and shown for as long.

    Raises:
        VideoError: It is damaged, or too large.
    """
    status = os.stat(path)
    return io.BytesIO(_as_video(path, status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=1)
def _as_video(path: str, changed: int, size: int) -> bytes:
    """Kept for one file, which is opened several times in a row; `changed` and `size` tell whether it is the same."""
    from PIL import Image

    video = io.BytesIO()
    try:
        with Image.open(path, formats=["WEBP"]) as image, av.open(video, "w", format="matroska") as container:
            _check_size(path, *image.size)
            _copy(path, image, container, video)
    except VideoError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path}: this WebP file cannot be read ({error}); get or encode it again") from error
    return video.getvalue()


def _check_size(path: str, width: int, height: int) -> None:
    if width * height > current_limits().video_pixels:
        raise beyond(path, f"pictures of {width}x{height}, {width * height} pixels", "video_pixels")


def _copy(path: str, image: Any, container: Any, video: io.BytesIO) -> None:
    stream = container.add_stream("ffv1", rate=TICKS)
    stream.width, stream.height = image.size
    stream.pix_fmt = "bgra"
    stream.metadata[CODEC_TAG] = "webp"
    begin = 0
    for number in range(image.n_frames):
        image.seek(number)
        frame = av.VideoFrame.from_ndarray(np.asarray(image.convert("RGBA")), format="rgba").reformat(format="bgra")
        frame.pts, frame.time_base = begin, Fraction(1, TICKS)
        milliseconds = int(image.info.get("duration", 0)) or UNSAID
        begin += milliseconds
        for packet in stream.encode(frame):
            packet.duration = milliseconds
            container.mux(packet)
        if video.tell() > MOST_BYTES:
            raise VideoError(f"{path}: the animation is too long or too large; encode it as a video, as H.264 say")
    container.mux(stream.encode(None))
