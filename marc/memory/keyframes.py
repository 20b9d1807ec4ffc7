"""The keyframes by which the events of one video are remembered, taken and embedded while the video is read.

A `KeyframeCollector` gets one frame every few seconds from the reading that feeds the shot detector, so a video is
decoded once. It keeps an embedding and a thumbnail of each, and says what each event looks like when the events are
known.

Shape legend: S keyframes, T frames, H height, W width, D embedding dimensions.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from marc.memory.clips import CoarsePictures, clip_embedder_of, embed_clips
from marc.memory.descriptors import Descriptors
from marc.memory.events import evenly_inside
from marc.memory.growing import GrowingArray
from marc.memory.vectors import average_direction, rounded
from marc.types import Event, Frames
from marc.video import SampledFrames, read_frames

READ_TIMEOUT = 300.0
_EMBEDDED_AT_A_TIME = 8
_READ_AT_A_TIME = 32
MOST_LOOKS = 8
"""Keyframes of an event that are kept."""


class FrameEmbedder(Protocol):
    """What makes vectors of frames; `marc.memory.EventEmbedder` does."""

    @property
    def image_size(self) -> int:
        """Longer side in pixels of the picture that the model sees."""
        ...

    def embed_frames(self, frames_THWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Unit vectors ``float32 [T, D]`` of RGB frames ``uint8 [T, H, W, 3]``."""
        ...


class KeyframeCollector:
    """Embeddings and thumbnails of frames of one video.

    Memory grows by one vector and one thumbnail (some 5 kB) per keyframe that differs from the one before: a picture
    that stays is embedded once.

    Args:
        embedder: Embeds the frames.
        interval: Seconds between keyframes.
        thumbnail_width: Width of the thumbnails in pixels.

    Attributes:
        request: What to take of the video in passing. Keyframes have twice the area that the model sees, so that a
            wide one is not enlarged in height when it is squashed to a square.
    """

    def __init__(self, embedder: FrameEmbedder, *, interval: float, thumbnail_width: int) -> None:
        self.request = SampledFrames(interval, 2 * embedder.image_size**2)
        self._clip_embedder = clip_embedder_of(embedder)
        self._clip_vectors_ED: NDArray[np.float32] | None = None
        self._embedder = CoarsePictures(embedder.image_size) if self._clip_embedder else embedder
        self._thumbnail_width = thumbnail_width
        self._seconds: list[float] = []
        self._rows: list[int] = []  # of each keyframe, where its vector and its thumbnail are
        self._latest: NDArray[np.uint8] | None = None
        self._vectors = GrowingArray(np.float32)
        self._thumbnails = bytearray()
        self._thumbnail_ends = [0]
        self._waiting: list[NDArray[np.uint8]] = []

    def __len__(self) -> int:
        return len(self._seconds)

    @property
    def descriptors(self) -> Descriptors:
        """The embeddings of the keyframes so far, in time order."""
        if not self._seconds:
            return Descriptors.empty()
        order = np.argsort(self._seconds)
        return Descriptors(np.array(self._seconds)[order], self._embedded()[self._rows][order])

    def consume(self, frames: Frames) -> None:
        """Take frames ``[S, H, W, 3]`` as keyframes."""
        self._seconds += frames.seconds.tolist()
        for rgb_HWC in frames.rgb:
            if self._latest is None or not np.array_equal(rgb_HWC, self._latest):
                self._thumbnails += jpeg(rgb_HWC, self._thumbnail_width)
                self._thumbnail_ends.append(len(self._thumbnails))
                self._waiting.append(rgb_HWC)
                self._latest = rgb_HWC
            self._rows.append(len(self._thumbnail_ends) - 2)
        if len(self._waiting) >= _EMBEDDED_AT_A_TIME:
            self._embed()

    def complete(self, video: str | Path, events: Sequence[Event]) -> None:
        """Read keyframes of the events that have none yet: one, or one every interval.

        Where the model sees clips, those of all events are read and embedded, too.
        """
        taken = np.array(self._seconds)
        missing = [event for event in events if not _inside(taken, event).any()]
        times = [evenly_inside(event, max(1, round(event.duration / self.request.interval))) for event in missing]
        seconds_S = np.concatenate(times) if times else np.empty(0)
        for first in range(0, len(seconds_S), _READ_AT_A_TIME):
            asked = seconds_S[first : first + _READ_AT_A_TIME]
            pixels = self.request.max_pixels
            frames = read_frames(video, asked, min_pixels=1, max_pixels=pixels, factor=2, timeout=READ_TIMEOUT)
            self.consume(Frames(frames.rgb, asked, frames.source))  # the time asked for lies inside the event
        if self._clip_embedder is not None:
            self._clip_vectors_ED = embed_clips(video, events, self._clip_embedder)

    def describe(self, events: Sequence[Event]) -> tuple[NDArray[np.float32], tuple[bytes, ...]]:
        """The mean direction of each event's keyframes ``float32 [E, D]`` and the thumbnail nearest its middle.

        Where the model sees clips, the vectors are those of the events that were completed.
        """
        seconds_S, vectors_SD = np.array(self._seconds), self._embedded()[self._rows]
        members = [np.flatnonzero(_inside(seconds_S, event)) for event in events]
        middles = [
            inside[np.abs(seconds_S[inside] - event.middle).argmin()]
            for inside, event in zip(members, events, strict=True)
        ]
        if self._clip_vectors_ED is not None:
            vectors_ED = self._clip_vectors_ED
            assert len(vectors_ED) == len(events)
        else:
            vectors_ED = np.stack([average_direction(vectors_SD[inside]) for inside in members])
        return vectors_ED, tuple(self._thumbnail(index) for index in middles)

    def looks(self, events: Sequence[Event]) -> tuple[NDArray[np.int8], ...]:
        """The directions of each event's different keyframes ``int8 [K, D]``, evenly chosen where there are many.

        None where the model sees clips.
        """
        if self._clip_embedder is not None:
            return ()
        seconds_S, rows_S, vectors = np.array(self._seconds), np.array(self._rows), self._embedded()
        different = [np.unique(rows_S[_inside(seconds_S, event)]) for event in events]
        return tuple(rounded(vectors[_at_most(rows, MOST_LOOKS)]) for rows in different)

    def _embedded(self) -> NDArray[np.float32]:
        if self._waiting:
            self._embed()
        return self._vectors.array

    def _embed(self) -> None:
        self._vectors.extend(self._embedder.embed_frames(np.stack(self._waiting)))
        self._waiting = []

    def _thumbnail(self, index: int) -> bytes:
        row = self._rows[index]
        start, end = self._thumbnail_ends[row : row + 2]
        return bytes(self._thumbnails[start:end])


def jpeg(rgb_HWC: NDArray[np.uint8], width: int) -> bytes:
    """A picture as JPEG of a width in pixels, its aspect ratio kept."""
    picture = Image.fromarray(rgb_HWC)
    height = max(1, round(picture.height * width / picture.width))
    buffer = io.BytesIO()
    picture.resize((width, height)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _inside(seconds_S: NDArray[np.float64], event: Event) -> NDArray[np.bool_]:
    inside_S: NDArray[np.bool_] = (seconds_S >= event.start) & (seconds_S < event.end)
    return inside_S


def _at_most(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """So many of some rows at most, evenly chosen."""
    return rows if len(rows) <= most else rows[((np.arange(most) + 0.5) * len(rows) / most).astype(np.int64)]
