"""The decoders to choose from: PyAV (the default, see docs/decoding.md), decord and torchcodec.

Each fills a given array with the frames shown at given times and returns their true times. Headers, sampling, and the
size of the frames come from PyAV for all three, so that they differ in nothing but the decoding.

Shapes: T frames, H height, W width, C = 3 colours.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Flag
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from marc.extras import extra
from marc.video.decoding import TIME_TOLERANCE, VideoReader
from marc.video.errors import VideoError

# PyAV 17, the last one for Python 3.10, has no flags beside the filters: it rounds a little less exactly.
EXACT = ("ACCURATE_RND", "FULL_CHR_H_INT") if issubclass(Interpolation, Flag) else ()
SCALING = reduce(or_, (Interpolation[name] for name in EXACT), Interpolation.BICUBIC)

OPAQUE = 255
AT_A_TIME = 32
"""Frames that torchcodec gives at once; its call for a single one gives the next picture where one stays longer."""

Decoder = Callable[[VideoReader, NDArray[np.float64], NDArray[np.uint8]], NDArray[np.float64]]


class Converter:
    """Turns decoded pictures into RGB of one size, upright.

    Args:
        width: Width of the result in pixels, as shown.
        height: Height of the result in pixels, as shown.
        rotation: Clockwise degrees by which the stored picture is turned to be shown.
        rough: Average areas, which is cheaper than the exact bicubic scaling.
    """

    def __init__(self, width: int, height: int, rotation: int, *, rough: bool = False) -> None:
        self._scaling = Interpolation.AREA if rough else SCALING
        self._stored_size = (height, width) if rotation in (90, 270) else (width, height)
        self._quarter_turns = -rotation // 90
        self._to_colours, self._to_alpha = VideoReformatter(), VideoReformatter()

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """RGB ``uint8 [H, W, 3]`` of one picture, on white where it is transparent."""
        size = {"width": self._stored_size[0], "height": self._stored_size[1], "interpolation": self._scaling}
        rgb_HWC = self._to_colours.reformat(frame, format="rgb24", **size).to_ndarray()
        if may_be_transparent(frame):
            alpha_HW1 = self._to_alpha.reformat(frame, format="rgba", **size).to_ndarray()[..., 3:]
            if alpha_HW1.min() < OPAQUE:
                rgb_HWC = on_white(rgb_HWC, alpha_HW1)
        return np.rot90(rgb_HWC, self._quarter_turns)


def may_be_transparent(frame: VideoFrame) -> bool:
    """Whether the pixels of a picture have an alpha value, by themselves or in its palette."""
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def on_white(rgb_HWC: NDArray[Any], alpha_HW1: NDArray[Any]) -> NDArray[np.uint8]:
    """A picture of 8 bits a colour in front of a white wall."""
    visible_HW1 = alpha_HW1.astype(np.uint16)
    mixed_HWC = visible_HW1 * rgb_HWC + (OPAQUE - visible_HW1) * np.uint16(OPAQUE)
    return ((mixed_HWC + OPAQUE // 2) // OPAQUE).astype(np.uint8)


def read_with_pyav(
    reader: VideoReader, seconds_T: NDArray[np.float64], rgb_THWC: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Decode with PyAV, a picture at a time: nothing but the frames asked for is kept or converted."""
    convert = Converter(rgb_THWC.shape[2], rgb_THWC.shape[1], reader.rotation)
    shown_T = np.empty(len(seconds_T))
    previous = None
    for index, picture in enumerate(reader.pictures_at(seconds_T)):
        rgb_THWC[index] = rgb_THWC[index - 1] if picture is previous else convert(picture.frame)
        shown_T[index] = picture.seconds
        previous = picture
    return shown_T


def read_with_decord(
    reader: VideoReader, seconds_T: NDArray[np.float64], rgb_THWC: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Decode with decord, which scales while decoding but cannot be told which video of a file to read."""
    with extra("decord"):
        import decord

    path = reader.path
    if reader.has_other_videos:
        raise VideoError(f"{path}: decord cannot choose among the videos in it; use backend='pyav'")
    decord.logging.set_level(decord.logging.QUIET)
    height, width = rgb_THWC.shape[1:3]
    try:
        video = decord.VideoReader(path, width=width, height=height)
        starts = video.get_frame_timestamp(range(len(video)))[:, 0].astype(np.float64)
        starts -= starts[0]
        index_T = np.searchsorted(starts, seconds_T + reader.tolerance, side="right") - 1
        for row, index in zip(rgb_THWC, index_T.clip(min=0), strict=True):
            row[:] = video[int(index)].asnumpy()
    except (decord.DECORDError, RuntimeError, ValueError) as error:
        raise _failure(path, "decord", error) from error
    return starts[index_T.clip(min=0)]


def read_with_torchcodec(
    reader: VideoReader, seconds_T: NDArray[np.float64], rgb_THWC: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Decode with torchcodec, which needs FFmpeg's shared libraries on the system."""
    path = reader.path
    try:
        with extra("torchcodec"):
            from torchcodec.decoders import VideoDecoder
            from torchcodec.transforms import Resize

        video = VideoDecoder(
            path,
            stream_index=reader.stream_index,
            dimension_order="NHWC",
            num_ffmpeg_threads=0,
            transforms=[Resize(rgb_THWC.shape[1:3])],
        )
        begin, end = video.metadata.begin_stream_seconds, video.metadata.end_stream_seconds
        assert begin is not None and end is not None
        times_T = np.maximum(begin + seconds_T + reader.tolerance, begin)
        shown_T = np.empty(len(times_T))
        before_end = int(times_T.searchsorted(end - TIME_TOLERANCE))
        for first in range(0, before_end, AT_A_TIME):
            part = slice(first, min(first + AT_A_TIME, before_end))
            batch = video.get_frames_played_at(times_T[part].tolist())
            rgb_THWC[part], shown_T[part] = batch.data.numpy(), batch.pts_seconds.numpy() - begin
        if before_end < len(times_T):  # the last picture of some files has no duration, and no time finds it
            last = video.get_frame_at(len(video) - 1)
            rgb_THWC[before_end:], shown_T[before_end:] = last.data.numpy(), last.pts_seconds - begin
    except (ImportError, RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, ImportError) or "libtorchcodec" in str(error):
            raise VideoError(
                f"{path}: backend='torchcodec' needs the package torchcodec and FFmpeg's shared libraries; install "
                "them (pip install torchcodec; apt install ffmpeg), or use backend='pyav'"
            ) from error
        raise _failure(path, "torchcodec", error) from error
    return shown_T


def _failure(path: str, name: str, error: Exception) -> VideoError:
    cause = (str(error).splitlines() or [type(error).__name__])[0]
    return VideoError(f"{path}: {name} cannot read it ({cause}); use backend='pyav'")


DECODERS: dict[str, Decoder] = {
    "pyav": read_with_pyav,
    "decord": read_with_decord,
    "torchcodec": read_with_torchcodec,
}
DEFAULT_DECODER = "pyav"


def decoder(name: str) -> Decoder:
    """The decoder of this name.

    Raises:
        VideoError: There is none.
    """
    if name not in DECODERS:
        raise VideoError(f"backend={name!r} is unknown; choose one of {', '.join(DECODERS)}")
    return DECODERS[name]
