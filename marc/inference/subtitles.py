"""The subtitles that a question makes use of: read when first needed, and written into the prompt if asked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import inf
from pathlib import Path

from marc.data.prompts import render_subtitles
from marc.types import Event
from marc.video import VideoError
from marc.video.options import SubtitleOptions
from marc.video.subtitles import Subtitles, beside, read_subtitles

KEPT = 32
"""Videos of which subtitles are kept."""


class LazySubtitles:
    """The subtitles of one video, read at most once.

    Attributes:
        used: What was read; nothing as long as nobody asked.
        remarks: What the user should know about it.

    Args:
        video: The file.
        options: Which ones.
        timeout: Seconds after which reading is given up.
        duration: Of the video, in seconds.
    """

    def __init__(self, video: str | Path, options: SubtitleOptions, timeout: float, duration: float = inf) -> None:
        self._video, self._options, self._timeout, self._duration = video, options, timeout, duration
        self.used = Subtitles()
        self.remarks: tuple[str, ...] = ()

    def read(self) -> Subtitles:
        """The subtitles. Where none were named, those that cannot be read are left out with a remark.

        Raises:
            VideoError: Those that were named cannot be read.
        """
        choice = self._options.choice
        if choice == "none" or self.used.lines or self.remarks:
            return self.used
        try:
            named = beside(self._video) if choice == "auto" else Path(choice)
            states = tuple(_changed(file) for file in (self._video, named) if file)
            self.used = _read(str(self._video), choice, states, self._timeout)
        except VideoError as error:
            if choice != "auto":
                raise
            self.remarks = (f"subtitles that cannot be read are left out: {error}",)
        if choice not in ("auto", "none") and not self.used.source:
            raise VideoError(f"{choice}: no subtitles in this file; name a file of subtitles, auto or none")
        if self.used.source and not any(line.start < self._duration for line in self.used.lines):
            self.remarks = (f"no line of the subtitles {self.used.source} lies within the video",)
        return self.used


def said_in(subtitles: Subtitles, stretches: Sequence[Event]) -> str:
    """What is said in some stretches of a video, as it stands in the prompt."""
    heard = [
        line
        for line in subtitles.lines
        if any(line.start < stretch.end and stretch.start < line.end for stretch in stretches)
    ]
    return render_subtitles([(line.start, line.end, line.text) for line in heard])


@lru_cache(maxsize=KEPT)
def _read(video: str, choice: str, states: tuple[object, ...], timeout: float) -> Subtitles:
    """Read anew where the video or the file beside it has changed."""
    return read_subtitles(video, choice, timeout=timeout)


def _changed(path: str | Path) -> tuple[str, int, int]:
    """What tells a file from what it was before.

    Raises:
        VideoError: If there is none.
    """
    try:
        status = Path(path).stat()
    except OSError as error:
        raise VideoError(f"{path}: {error.strerror}; name a file of subtitles, auto or none") from error
    return str(Path(path).resolve()), status.st_mtime_ns, status.st_size
