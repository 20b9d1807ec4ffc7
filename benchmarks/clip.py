"""The video that the bench asks about: generated shots of equal length, joined by hard cuts, as an H.264 file.

Every fourth shot is a still picture under a sensor's noise, as a title or a slide is; in the others the camera and the
objects move (`benchmarks.synthetic_cuts`). What near-duplicate frames are worth depends on that share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.synthetic_cuts import make_shot

FPS = 25
STILL_EVERY = 4
_NOISE = 2.0


@dataclass(frozen=True)
class ClipOptions:
    """What the clip is like.

    Attributes:
        width: Of the picture in pixels.
        height: Of the picture in pixels.
        shots: Number of shots.
        seconds_per_shot: Length of each.
    """

    width: int
    height: int
    shots: int = 8
    seconds_per_shot: int = 8


def write_clip(path: Path, options: ClipOptions) -> None:
    """Writes the clip; equal options give equal pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = options.width, options.height, "yuv420p"
        for number, rgb_HWC in enumerate(_pictures(options)):
            frame = av.VideoFrame.from_ndarray(rgb_HWC, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _pictures(options: ClipOptions) -> Iterator[NDArray[np.uint8]]:
    """The shots' pictures, enlarged; a sensor's noise differs from pixel to pixel of the large ones."""
    rng = np.random.default_rng(0)
    frames = FPS * options.seconds_per_shot
    for shot in range(options.shots):
        if shot % STILL_EVERY < STILL_EVERY - 1:
            yield from (_enlarged(rgb_HWC, options) for rgb_HWC in make_shot(shot, frames))
        else:
            still_HWC = _enlarged(make_shot(shot, 1)[0], options)
            for _ in range(frames):
                noisy_HWC = still_HWC + rng.normal(0, _NOISE, (options.height, options.width, 1))
                yield np.clip(noisy_HWC, 0, 255).astype(np.uint8)


def _enlarged(rgb_HWC: NDArray[np.uint8], options: ClipOptions) -> NDArray[np.uint8]:
    frame = av.VideoFrame.from_ndarray(rgb_HWC, format="rgb24").reformat(options.width, options.height)
    return np.asarray(frame.to_ndarray(), dtype=np.uint8)
