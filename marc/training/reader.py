"""Reads the videos and images that prompts name: from files, or from any other source of frames.

Where frames come from is a `marc.video.sources.FrameSource`. What is read does not depend on how much of it the model
will see (`marc.inference.video_input.VideoInput`).

"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from marc.inference.video_input import VisualPatches
from marc.model import CompressedProcessor
from marc.types import FRAMES_PER_GRID
from marc.video import frame_size
from marc.video.pictures import picture_size, read_picture
from marc.video.sources import FrameSource, PixelLimits, VideoFiles

logger = logging.getLogger(__name__)

MAX_TOKENS = 128
"""Most tokens of a frame in training (Video-R1)."""


_AHEAD = ThreadPoolExecutor(2, "marc-reads-ahead")


@dataclass(frozen=True)
class VisualSource:
    """What a prompt names.

    Attributes:
        kind: ``"video"`` or ``"image"``.
        path: The file, or whatever name the `FrameSource` understands.
        cuts: Seconds at which new events of a video begin; None: not known.
    """

    kind: str
    path: str
    cuts: tuple[float, ...] | None = None


@dataclass(frozen=True)
class VisualReader:
    """Reads what prompts name.

    Attributes:
        processor: The model's.
        frames: Where videos come from.
        max_pixels: Most pixels of a frame or image; None: `MAX_TOKENS` worth, or the processor's limit if lower.
        keep: Visuals that are kept after reading, the latest ones; with a frozen tower each of them is encoded once.
        min_pixels: Fewest pixels of a frame or image; None: 4 tokens' worth.
    """

    processor: CompressedProcessor
    frames: FrameSource = field(default_factory=VideoFiles)
    max_pixels: int | None = None
    keep: int = 0
    min_pixels: int | None = None
    _kept: OrderedDict[VisualSource, VisualPatches] = field(default_factory=OrderedDict, repr=False, compare=False)
    _coming: dict[VisualSource, Future[VisualPatches]] = field(default_factory=dict, repr=False, compare=False)
    _announced: deque[set[VisualSource]] = field(
        default_factory=lambda: deque(maxlen=2), init=False, repr=False, compare=False
    )

    def read_ahead(self, sources: Iterable[VisualSource]) -> None:
        """Begins to read what `read` will be asked for, while something else is computed.

        What was announced last and before that is in memory at most, until it is asked for; anything older is dropped.
        """
        self._announced.append({source for source in sources if source not in self._kept})
        wanted = set().union(*self._announced)
        for source in self._coming.keys() - wanted:
            self._coming.pop(source).cancel()
        for source in sorted(self._announced[-1] - self._coming.keys(), key=lambda each: each.path):
            self._coming[source] = _AHEAD.submit(self._read, source)

    def read(self, source: VisualSource) -> VisualPatches:
        """Reads a file.

        Raises:
            ValueError: If it cannot be read (for videos a `marc.video.VideoError`); the message names it.
        """
        visual = self._kept.pop(source, None)
        if visual is None:
            begun = self._coming.pop(source, None)
            visual = self._read(source) if begun is None else begun.result()
        if self.keep:
            self._kept[source] = visual
            if len(self._kept) > self.keep:
                self._kept.popitem(last=False)
        return visual

    def remember(self, source: VisualSource, visual: VisualPatches) -> None:
        """Keeps what another reader has read, with what a frozen tower has seen in it."""
        self._kept[source] = visual

    def look(self, source: VisualSource) -> VisualPatches:
        """What `read` would give, but without pixels and without decoding.

        Raises:
            ValueError: If the file cannot be opened.
        """
        patch, merge = self.processor.video_processor.patch_size, self.processor.video_processor.merge_size
        if source.kind == "image":
            width, height = frame_size(*picture_size(source.path), source=source.path, **vars(self.limits))
            return VisualPatches("image", (1, height // patch, width // patch), merge, source.path)
        shape = self.frames.shape(source.path, self.limits)
        times = shape.seconds[::FRAMES_PER_GRID]
        grid = (len(times), shape.height // patch, shape.width // patch)
        return VisualPatches("video", grid, merge, source.path, tuple(shape.seconds.tolist()), _events(source, times))

    @property
    def limits(self) -> PixelLimits:
        """How large frames and images may be."""
        video_processor = self.processor.video_processor
        factor = video_processor.patch_size * video_processor.merge_size
        largest = self.max_pixels or min(self.processor.frame_pixels, MAX_TOKENS * factor**2)
        return PixelLimits(self.min_pixels or min(4 * factor**2, largest), largest, factor)

    def _read(self, source: VisualSource) -> VisualPatches:
        return self._read_image(source) if source.kind == "image" else self._read_video(source)

    def _read_video(self, source: VisualSource) -> VisualPatches:
        frames = self.frames.read(source.path, self.limits)
        return VisualPatches.of_frames(self.processor, frames, _events(source, frames.grid_seconds))

    def _read_image(self, source: VisualSource) -> VisualPatches:
        size = frame_size(*picture_size(source.path), source=source.path, **vars(self.limits))
        picture = read_picture(source.path, size)
        return VisualPatches.of_picture(self.processor, picture, source.path)


def read_rows(
    reader: VisualReader, sources: Sequence[Sequence[VisualSource]], names: Sequence[str], *, skip_bad: bool
) -> list[tuple[VisualPatches, ...] | None]:
    """Reads every distinct file of some rows once.

    Args:
        reader: Reads them.
        sources: What each row names.
        names: ``problem_id`` of each row.
        skip_bad: Give None for a row with a file that cannot be read, and log it, instead of stopping.

    Raises:
        ValueError: Naming the first row with such a file.
    """
    known: dict[VisualSource, VisualPatches | None] = {}
    rows: list[tuple[VisualPatches, ...] | None] = []
    for row, name in zip(sources, names, strict=True):
        for source in row:
            if source not in known:
                known[source] = _read_or_skip(reader, source, name, skip_bad=skip_bad)
        visuals = tuple(visual for source in row if (visual := known[source]) is not None)
        rows.append(visuals if len(visuals) == len(row) else None)
    return rows


def _read_or_skip(reader: VisualReader, source: VisualSource, name: str, *, skip_bad: bool) -> VisualPatches | None:
    try:
        return reader.read(source)
    except ValueError as error:
        if not skip_bad:
            raise ValueError(
                f"row with problem_id {name}: {error}; `marc data check` finds such rows before training, "
                "bad_video='skip' leaves them out"
            ) from error
        logger.warning("row with problem_id %s is skipped: %s", name, error)
        return None


def _events(source: VisualSource, grid_times: NDArray[np.float64]) -> tuple[int, ...] | None:
    if source.cuts is None:
        return None
    return tuple(np.searchsorted(source.cuts, grid_times, side="right").tolist())
