"""Which pictures somebody wants of a video that is read from its start to its end.

One reading serves any number of requests: every picture is decoded once, and scaled once for each request that wants
it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from marc.types import VideoInfo
from marc.video.sampling import frame_size

Chooser = Callable[[float], bool]
"""Says of each frame in turn, by its time in seconds, whether it is wanted."""


@dataclass(frozen=True)
class LeftOut:
    """Frames of a video that were not decoded, because they surely show the place that the frame before them shows.

    Attributes:
        seconds: When they are shown, ``float64 [N]``, N >= 1.
        then: What follows: more of the same shot, surely another one, or something that may be another one.
    """

    seconds: NDArray[np.float64]
    then: Literal["same", "cut", "perhaps"] = "same"


@dataclass(frozen=True)
class EveryFrame:
    """All frames at the native rate, small.

    Attributes:
        width: Their width in pixels; the aspect ratio is not kept.
        height: Their height in pixels.
        batch: Frames handed over at a time; the last batch may hold fewer.
        stride: Only every `stride`-th frame is wanted.
        takes_held: A picture that stays for longer than its file's rate says is wanted again and again, some ten
            times a second at most, so that a video looks as it would at a constant rate.
    """

    width: int
    height: int
    batch: int = 100
    stride: int = 1
    takes_held: bool = False
    takes_stand_ins = False

    def size(self, info: VideoInfo) -> tuple[int, int]:
        """Width and height of the frames."""
        return self.width, self.height

    def chooser(self, start: float) -> Chooser:
        """What to keep of a reading that begins at a time in seconds."""
        numbers = itertools.count()
        return lambda seconds: next(numbers) % self.stride == 0

    def fault(self) -> str | None:
        """What is wrong with this request."""
        if min(self.width, self.height, self.batch, self.stride) < 1:
            return (
                f"width, height, batch and stride must be at least 1, got {self.width}, {self.height}, {self.batch} "
                f"and {self.stride}"
            )
        return None


@dataclass(frozen=True)
class SampledFrames:
    """Single frames at about equal distances in time, large; a picture that stays for longer is taken again.

    Attributes:
        interval: Seconds between them; the first is taken after half of that.
        max_pixels: Their largest area. They keep the aspect ratio and are never enlarged.
    """

    interval: float
    max_pixels: int
    batch = 1
    takes_held = True
    takes_stand_ins = True

    def size(self, info: VideoInfo) -> tuple[int, int]:
        """Width and height of the frames."""
        limits = {"min_pixels": 1, "max_pixels": self.max_pixels, "factor": 2}
        return frame_size(info.width, info.height, source=info.source, **limits)

    def chooser(self, start: float) -> Chooser:
        """What to keep of a reading that begins at a time in seconds."""
        due = start + self.interval / 2

        def wanted(seconds: float) -> bool:
            nonlocal due
            if seconds < due:
                return False
            while due <= seconds:
                due += self.interval
            return True

        return wanted

    def fault(self) -> str | None:
        """What is wrong with this request."""
        if not (self.interval > 0 and self.max_pixels >= 4):
            return f"interval must be positive and max_pixels at least 4, got {self.interval} and {self.max_pixels}"
        return None


FrameRequest = EveryFrame | SampledFrames
