"""Where the frames of a video come from when it is known by a name: a file, or anything that gives frames.

`VideoFiles` decodes files, sampled as at inference; `marc.world.frames.WorldFrames` draws videos of the micro-world in
memory.

Shapes: T frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from marc.types import Frames
from marc.video.decoders import DEFAULT_DECODER
from marc.video.options import FrameOptions
from marc.video.reading import probe, read_frames
from marc.video.sampling import frame_size, sample_times


@dataclass(frozen=True)
class PixelLimits:
    """How large frames may be: their area in pixels, and what both sides must be multiples of."""

    min_pixels: int
    max_pixels: int
    factor: int


@dataclass(frozen=True)
class FrameShape:
    """What is known of a video before it is read.

    Attributes:
        seconds: Time of each frame that would be read, an even number of them.
        width: Of a frame as it would be read, in pixels.
        height: Likewise.
    """

    seconds: NDArray[np.float64]
    width: int
    height: int


class FrameSource(Protocol):
    """Where the frames of a named video come from."""

    def shape(self, name: str, limits: PixelLimits) -> FrameShape:
        """What `read` would give, without reading it."""
        ...

    def read(self, name: str, limits: PixelLimits) -> Frames:
        """The frames; their sides are multiples of ``limits.factor``.

        Raises:
            ValueError: If there is no such video, or it is damaged; the message names it.
        """
        ...


@dataclass(frozen=True)
class VideoFiles:
    """Video files, sampled as at inference.

    Attributes:
        fps: Frames per second to read.
        max_frames: Most frames of a video.
        min_frames: Fewest frames of a video.
        timeout: Seconds that reading one file may take.
        backend: The decoder, see `marc.video.backends`.
    """

    fps: float = 2.0
    max_frames: int = 64
    min_frames: int = 4
    timeout: float = field(default=60.0, repr=False)
    backend: str = field(default=DEFAULT_DECODER, repr=False)

    @classmethod
    def of(cls, options: FrameOptions) -> VideoFiles:
        """Those that are read as options say; the size of the frames is not among what they say here."""
        return cls(options.fps, options.max_frames, options.fewest, options.timeout, options.backend)

    def shape(self, name: str, limits: PixelLimits) -> FrameShape:
        """See `FrameSource`."""
        info = probe(name, timeout=self.timeout)
        times = sample_times(info, fps=self.fps, max_frames=self.max_frames, min_frames=self.min_frames)
        return FrameShape(times, *frame_size(info.width, info.height, source=name, **vars(limits)))

    def read(self, name: str, limits: PixelLimits) -> Frames:
        """See `FrameSource`; raises a `marc.video.VideoError`."""
        return read_frames(
            name,
            fps=self.fps,
            max_frames=self.max_frames,
            min_frames=self.min_frames,
            timeout=self.timeout,
            backend=self.backend,
            **vars(limits),
        )
