"""The public reading functions: they check what was asked and have a killable process do it.

Shapes: T frames, H height, W width, C = 3 colours.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marc.types import Frames, VideoInfo
from marc.video.decoders import DECODERS, DEFAULT_DECODER, decoder
from marc.video.errors import VideoError
from marc.video.jobs import KeyFrames, Probe, Read, Stream
from marc.video.known import ask
from marc.video.process import POOL
from marc.video.requests import EveryFrame, FrameRequest, LeftOut
from marc.video.sampling import MAX_PIXELS, MIN_PIXELS, PATCH_FACTOR, check_limits

TIMEOUT = 60.0


class FrameConsumer(Protocol):
    """Somebody to whom frames are pushed while a video is read, such as a shot detector or a progress bar."""

    @property
    def request(self) -> FrameRequest:
        """Which frames it wants; the same throughout the reading."""
        ...

    def consume(self, frames: Frames) -> None:
        """Take the next frames ``[T, H, W, 3]`` of the video."""
        ...


@runtime_checkable
class SkimmingConsumer(FrameConsumer, Protocol):
    """A consumer that is told of frames that are left out."""

    def skip(self, frames: LeftOut) -> None:
        """The next frames of the video are left out."""
        ...


def backends() -> tuple[str, ...]:
    """Names of the decoders that `read_frames` can be told to use."""
    return tuple(DECODERS)


def warm_up() -> None:
    """Start the decoding process without waiting for it, so that a first read need not (while a model loads, say)."""
    POOL.warm_up()


def probe(path: str | Path, *, timeout: float = TIMEOUT) -> VideoInfo:
    """Describe a video: its size as shown, length, frame rate, codec; looked at once while it stays as it is.

    Args:
        path: A video file.
        timeout: Seconds after which to give up.

    Raises:
        VideoError: The file is missing, is not a video, is damaged, or took too long.
    """
    check_file(path, timeout)
    info: VideoInfo = ask(Probe(os.path.abspath(path)), timeout)
    return replace(info, source=str(path))


def read_frames(
    path: str | Path,
    seconds: ArrayLike | None = None,
    *,
    fps: float = 2.0,
    max_frames: int = 64,
    min_frames: int = 4,
    start: float = 0.0,
    end: float | None = None,
    min_pixels: int = MIN_PIXELS,
    max_pixels: int = MAX_PIXELS,
    factor: int = PATCH_FACTOR,
    backend: str = DEFAULT_DECODER,
    timeout: float = TIMEOUT,
) -> Frames:
    """Read the frames shown at given times, or evenly sampled ones.

    Rotation metadata is applied. The frames are resized while decoding, so memory is bounded by the frames asked for.

    Args:
        path: A video file.
        seconds: Non-decreasing times ``[T]`` since the first picture; before it the first, after the end the last
            picture is shown. None samples the video as `sample_times` does.
        fps: Frames per second to sample, without `seconds`.
        max_frames: Most frames to sample.
        min_frames: Fewest frames to sample.
        start: Start of the stretch to sample, in seconds.
        end: End of the stretch to sample, exclusive, in seconds; None for the end of the video.
        min_pixels: Smallest area of a frame (Qwen2.5-VL enlarges videos to ``128 * 28 * 28``).
        max_pixels: Largest area of a frame (Video-R1: ``128 * 28 * 28`` in training, ``256 * 28 * 28`` in evaluation).
        factor: Both sides are multiples of this.
        backend: One of `backends()`.
        timeout: Seconds after which to give up; the decoder is killed then.

    Returns:
        Frames with their true times, which are at most the asked ones (but for the first).

    Raises:
        VideoError: The file cannot be read, a limit is out of range, or the time is over.
    """
    check_file(path, timeout)
    decoder(backend)
    check_limits(str(path), fps=fps, max_frames=max_frames, min_frames=min_frames)
    times = None if seconds is None else _checked_times(path, seconds)
    job = Read(
        os.path.abspath(path),
        times,
        fps,
        max_frames,
        min_frames,
        start,
        end,
        min_pixels,
        max_pixels,
        factor,
        backend,
    )
    ((shown_T, rgb_THWC),) = POOL.run(job, timeout)
    assert rgb_THWC is not None
    return Frames(rgb_THWC, shown_T, str(path))


def key_frame_seconds(path: str | Path, *, timeout: float = TIMEOUT) -> NDArray[np.float64]:
    """When the key frames of a video are shown, by its packets; they alone are decoded without what lies before them.

    Args:
        path: A video file.
        timeout: Seconds after which to give up.

    Returns:
        Ascending times ``float64 [K]``; none where the file cannot be sought in, or states no times.

    Raises:
        VideoError: The file cannot be read, or took too long.
    """
    check_file(path, timeout)
    return np.array(ask(KeyFrames(os.path.abspath(path)), timeout), dtype=np.float64)


def stream_frames(
    path: str | Path,
    *,
    width: int,
    height: int,
    batch: int = 100,
    stride: int = 1,
    start: float = 0.0,
    end: float | None = None,
    rough: bool = False,
    ahead: int = 1,
    timeout: float = TIMEOUT,
) -> Iterator[Frames]:
    """Read all frames at the native rate, in order, in constant memory.

    Args:
        path: A video file.
        width: Width of the frames in pixels; the aspect ratio is not kept.
        height: Height of the frames in pixels.
        batch: Frames per item; the last item may hold fewer.
        stride: Keep every `stride`-th frame.
        start: Begin with the frame shown at this time, in seconds.
        end: Stop before this time; None for the end of the video.
        rough: Leave out the codec's deblocking filter in pictures that no other refers to, and average areas instead
            of scaling exactly: cheaper, and good enough to see where something changes.
        ahead: How many batches the decoder may have ready before they are asked for.
        timeout: Seconds after which to give up waiting for one more batch.

    Yields:
        Batches of frames with their true times.

    Raises:
        VideoError: The file cannot be read, is cut off (after the batches up to there), or a batch took too long.
    """
    request = EveryFrame(width, height, batch, stride)
    job = Stream(os.path.abspath(path), (request,), start, end, rough)
    for _, frames in _stream(path, job, ahead, timeout):
        assert isinstance(frames, Frames)
        yield frames


def read_to(
    path: str | Path,
    consumers: Sequence[FrameConsumer],
    *,
    start: float = 0.0,
    rough: bool = False,
    ahead: int = 1,
    timeout: float = TIMEOUT,
) -> None:
    """Read a whole video once, in constant memory, and push to each consumer the frames that it asks for.

    Frames come in order of time, batch by batch; consumers of one request get the same arrays, in their order. Of a
    picture that completes batches of several requests, the request of the earlier consumer is served first.

    Args:
        path: A video file.
        consumers: Who gets frames; one at least.
        start: Begin with the frame shown at this time, in seconds.
        rough: As in `stream_frames`.
        ahead: As in `stream_frames`.
        timeout: Seconds after which to give up waiting for one more batch.

    Raises:
        VideoError: The file cannot be read, is cut off (after the batches up to there), or a batch took too long.
    """
    job = Stream(os.path.abspath(path), _requests(consumers), start, rough=rough)
    _push(path, job, consumers, ahead, timeout)


def skim_to(path: str | Path, consumers: Sequence[FrameConsumer], *, ahead: int = 1, timeout: float = TIMEOUT) -> None:
    """What `read_to` does, roughly, but what surely shows the same place all the time is not decoded.

    `marc.video.skimming` says what that is. Whoever asks for every frame does not get those, but is told of them if it
    is a `SkimmingConsumer`; whoever asks for some gets one that stands for them.

    Args:
        path: A video file.
        consumers: Who gets frames; one at least.
        ahead: As in `stream_frames`.
        timeout: As in `read_to`.

    Raises:
        VideoError: As `read_to` does; damage in what is left out is not noticed.
    """
    job = Stream(os.path.abspath(path), _requests(consumers), rough=True, skims=True)
    _push(path, job, consumers, ahead, timeout)


def _requests(consumers: Sequence[FrameConsumer]) -> tuple[FrameRequest, ...]:
    return tuple(dict.fromkeys(consumer.request for consumer in consumers))


def _push(path: str | Path, job: Stream, consumers: Sequence[FrameConsumer], ahead: int, timeout: float) -> None:
    listeners = [[consumer for consumer in consumers if consumer.request == request] for request in job.requests]
    told = [consumer for consumer in consumers if isinstance(consumer, SkimmingConsumer)]
    with closing(_stream(path, job, ahead, timeout)) as batches:
        for number, frames in batches:
            if isinstance(frames, LeftOut):
                for skimming in told:
                    skimming.skip(frames)
            else:
                for consumer in listeners[number]:
                    consumer.consume(frames)


def _stream(
    path: str | Path, job: Stream, ahead: int, timeout: float
) -> Generator[tuple[int, Frames | LeftOut], None, None]:
    """Every batch of a job, with the number of its request; frames that are left out have no number of any."""
    check_file(path, timeout)
    _check_stream(path, job, ahead)
    for result, rgb_THWC in POOL.run(job, timeout, ahead):
        if isinstance(result, LeftOut):
            yield -1, result
        else:
            assert rgb_THWC is not None
            number, seconds_T = result
            yield number, Frames(rgb_THWC, seconds_T, str(path))


def _check_stream(path: str | Path, job: Stream, ahead: int) -> None:
    if not job.requests:
        raise VideoError(f"{path}: nobody asks for its frames; read it to one consumer at least")
    for fault in filter(None, (request.fault() for request in job.requests)):
        raise VideoError(f"{path}: {fault}")
    if ahead < 1:
        raise VideoError(f"{path}: ahead must be at least 1, got {ahead}")
    if not 0 <= job.start < (math.inf if job.end is None else job.end):
        raise VideoError(f"{path}: a stretch needs 0 <= start < end, got start={job.start}, end={job.end}")


def check_file(path: str | Path, timeout: float) -> None:
    """Refuse what is no file with something in it, and a time limit that is none.

    Raises:
        VideoError: Names the path and what to do.
    """
    if not 0 < timeout < math.inf:
        raise VideoError(f"{path}: timeout must be a positive, finite number of seconds, got {timeout}")
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # also a name that no file can have
        raise VideoError(
            f"{path}: there is no such file; check the path (the current folder is {os.getcwd()})"
        ) from error
    except OSError as error:
        raise VideoError(f"{str(path)[:200]}: cannot be looked at ({error.strerror}); check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise VideoError(f"{path}: this is a folder; give a video file in it")
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(f"{path}: this is not a regular file; save the video to one first")
    if status.st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes); get it again")


def _checked_times(path: str | Path, seconds: ArrayLike) -> NDArray[np.float64]:
    times = np.asarray(seconds, dtype=np.float64)
    if times.ndim != 1 or not len(times) or not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise VideoError(f"{path}: seconds must be a non-empty list of finite, non-decreasing times")
    return times
