"""Writing H.264 videos: what the micro-world, the tests and the examples are made with.

Shapes: T frames, H height, W width, C = 3 colours.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from marc.video.errors import VideoError


def write_video(path: str | Path, rgb_THWC: NDArray[np.uint8], *, fps: float, crf: int = 18) -> None:
    """Write RGB frames as an H.264 file that every player opens (yuv420p, index at the front).

    Args:
        path: File to write; its extension chooses the container (``.mp4``, ``.mkv``, ...).
        rgb_THWC: ``uint8 [T, H, W, 3]`` with T >= 1 and even H and W.
        fps: Frames per second.
        crf: Constant rate factor of x264, 0 (best) to 51 (smallest).

    Raises:
        VideoError: The frames, the rate or the quality are out of range.
    """
    if rgb_THWC.dtype != np.uint8 or rgb_THWC.ndim != 4 or rgb_THWC.shape[3] != 3 or not len(rgb_THWC):
        raise VideoError(f"{path}: frames must be uint8 [T, H, W, 3], T >= 1; got {rgb_THWC.dtype} {rgb_THWC.shape}")
    height, width = rgb_THWC.shape[1:3]
    if height % 2 or width % 2 or not height or not width:
        raise VideoError(
            f"{path}: 4:2:0 video needs an even width and height, got {width}x{height}; pad or crop by a pixel"
        )
    if not fps > 0 or not 0 <= crf <= 51:
        raise VideoError(f"{path}: needs fps > 0 and 0 <= crf <= 51, got fps={fps}, crf={crf}")
    options = {"movflags": "+faststart"} if Path(path).suffix in {".mp4", ".mov", ".m4v"} else {}
    with av.open(f"file:{Path(path).absolute()}", "w", options=options) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame_HWC in rgb_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode(None))
