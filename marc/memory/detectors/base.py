"""What a detector of shot boundaries is.

Shape legend: T frames, H height, W width.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata

from marc.io import sha256_file
from marc.types import Frames, VideoInfo
from marc.video.requests import LeftOut

OUR_MODULES = "marc."


@dataclass(frozen=True)
class Transition:
    """Where one shot gives way to the next, in seconds.

    Attributes:
        start: Time of the last frame that shows only the earlier shot.
        end: Time of the first frame that shows only the later shot: for a hard cut the frame after ``start``'s.
        boundary: Time of the frame from which on the later shot counts: ``end`` for a hard cut, else the middle frame.
    """

    start: float
    end: float
    boundary: float


class ShotDetector:
    """Finds the transitions of a video whose frames are pushed to it; what to subclass for another segmenter.

    One that cuts where the brightness jumps:

        class Jumps(ShotDetector):
            def start(self, info):
                self.before = None

            def process(self, frames):
                for second, level in zip(frames.seconds, frames.rgb.mean(axis=(1, 2, 3))):
                    if self.before and abs(level - self.before[1]) > 40:
                        yield Transition(self.before[0], second, second)
                    self.before = second, level

    A detector may serve one video after another, each begun by `start`; two at a time need two detectors.

    Attributes:
        frame_size: Width and height in pixels of the frames that it wants, all of a video in order; None if it does
            without and the video need not be decoded.
        skims: Whether frames may be left out that surely show the place that the one before them shows; it is told of
            them by `skip`.
        package: Distribution that it rests on, whose version a memory's key holds; ``""`` for none.

    Args:
        device: Where a network runs, as PyTorch names it; None takes a CUDA GPU where there is one.
    """

    frame_size: tuple[int, int] | None = (48, 27)
    skims: bool = False
    package = ""

    def __init__(self, *, device: str | None = None) -> None:
        self.device = device

    @classmethod
    def version(cls) -> str:
        """What its results depend on besides the frames and the version of this package, for the key of a memory.

        That is the version of its `package` and, where it comes from elsewhere than this package, the content of the
        file that it is written in.
        """
        parts = [f"{cls.package} {metadata.version(cls.package)}"] if cls.package else []
        if not cls.__module__.startswith(OUR_MODULES):
            parts.append(f"{cls.__module__}:{cls.__qualname__} {sha256_file(inspect.getfile(cls))[:16]}")
        return ", ".join(parts)

    def start(self, info: VideoInfo) -> None:
        """A video begins: nothing is kept of an earlier one."""

    def process(self, frames: Frames) -> Iterable[Transition]:
        """Take the next frames ``[T, H, W, 3]`` and return the transitions that are certain by now, if any."""
        return ()

    def skip(self, frames: LeftOut) -> Iterable[Transition]:
        """The next frames are left out: see `skims`. Returns what `process` does."""
        return ()

    def finish(self, duration: float) -> Iterable[Transition]:
        """The video is over after so many seconds: return the transitions that have not been returned yet."""
        return ()
