"""The keyframes by which the events of one video are remembered, taken while the video is read.

A `KeyframeCollector` gets one frame every few seconds from the reading that feeds the shot detector, so a video is
decoded once. It keeps them until the events are known, and then embeds some of each: a few that are spread evenly say
as much of an event as all that fell into it. Only where a shot is too long for one event are all embedded, because
their embeddings tell where it changes. docs/memory.md has what that saves.

Shape legend: S keyframes, T frames, H height, W width, D embedding dimensions.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from marc.memory.clips import CoarsePictures, clip_embedder_of, embed_clips
from marc.memory.descriptors import Descriptors
from marc.memory.events import evenly_inside
from marc.memory.growing import GrowingArray
from marc.memory.pictures import KeptPictures
from marc.memory.vectors import average_direction, rounded
from marc.types import Event, Frames
from marc.video import SampledFrames, read_frames

READ_TIMEOUT = 300.0
APART = 2
"""Of so many keyframes that fell into an event one is embedded."""
EMBEDDED_AT_A_TIME = 8
"""Keyframes of a batch. Who embeds for several videos puts theirs together only if told to
(`marc.cluster.ClusterOptions.embed_batch`), as the last bits of a vector may depend on how many are together."""
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


@runtime_checkable
class PictureEmbedder(Protocol):
    """What makes vectors of pictures as they are kept; `marc.memory.remote_embedder.RemoteEmbedder` does."""

    @property
    def image_size(self) -> int:
        """As that of a `FrameEmbedder`."""
        ...

    def embed_pictures(self, jpegs: Sequence[bytes]) -> NDArray[np.float32]:
        """Unit vectors ``float32 [S, D]`` of JPEG pictures of one size."""
        ...


class KeyframeCollector:
    """Keyframes of one video, of which a few of each event are embedded.

    Each that differs from the one before is kept on disk (some 50 kB): a picture that stays is embedded once. Memory
    grows by one vector for each that is embedded.

    Args:
        embedder: Embeds the frames.
        interval: Seconds between keyframes.
        thumbnail_width: Width of the thumbnails in pixels.

    Attributes:
        request: What to take of the video in passing. Keyframes have twice the area that the model sees, so that a
            wide one is not enlarged in height when it is squashed to a square.
    """

    def __init__(self, embedder: FrameEmbedder | PictureEmbedder, *, interval: float, thumbnail_width: int) -> None:
        self.request = SampledFrames(interval, 2 * embedder.image_size**2)
        self._clip_embedder = clip_embedder_of(embedder)
        self._clip_vectors_ED: NDArray[np.float32] | None = None
        self._embedder = CoarsePictures(embedder.image_size) if self._clip_embedder else embedder
        self._thumbnail_width = thumbnail_width
        self._taken = GrowingArray(np.float64)
        self._rows: list[int] = []  # of each keyframe, which picture it is
        self._latest: NDArray[np.uint8] | None = None
        self._pictures = KeptPictures()
        self._places: dict[int, int] = {}  # of each picture that is embedded, where its vector is
        self._vectors = GrowingArray(np.float32)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def descriptors(self) -> Descriptors:
        """The embeddings of all keyframes so far, in time order."""
        return self._descriptors(np.arange(len(self)))

    def descriptors_in(self, stretches: Sequence[Event]) -> Descriptors:
        """The embeddings of the keyframes in some stretches, in time order."""
        inside_S = np.any([_inside(self._seconds, stretch) for stretch in stretches], axis=0) if stretches else []
        return self._descriptors(np.flatnonzero(inside_S))

    def consume(self, frames: Frames) -> None:
        """Take frames ``[S, H, W, 3]`` as keyframes.

        Raises:
            OSError: There is no room to keep them on disk.
        """
        self._taken.extend(frames.seconds)
        self.__dict__.pop("_seconds", None)
        for rgb_HWC in frames.rgb:
            if self._latest is None or not np.array_equal(rgb_HWC, self._latest):
                self._pictures.append(rgb_HWC)
                self._latest = rgb_HWC
            self._rows.append(len(self._pictures) - 1)

    def complete(self, video: str | Path, events: Sequence[Event]) -> None:
        """Read keyframes of the events that have none yet, as many as are to be embedded.

        Where the model sees clips, those of all events are read and embedded, too.
        """
        missing = [event for event in events if not _inside(self._seconds, event).any()]
        times = [evenly_inside(event, self._wanted(event)) for event in missing]
        seconds_S = np.concatenate(times) if times else np.empty(0)
        for first in range(0, len(seconds_S), _READ_AT_A_TIME):
            asked = seconds_S[first : first + _READ_AT_A_TIME]
            pixels = self.request.max_pixels
            frames = read_frames(video, asked, min_pixels=1, max_pixels=pixels, factor=2, timeout=READ_TIMEOUT)
            self.consume(Frames(frames.rgb, asked, frames.source))  # the time asked for lies inside the event
        if self._clip_embedder is not None:
            self._clip_vectors_ED = embed_clips(video, events, self._clip_embedder)

    def describe(self, events: Sequence[Event]) -> tuple[NDArray[np.float32], tuple[bytes, ...]]:
        """The mean direction of some keyframes of each event ``float32 [E, D]`` and the thumbnail nearest its middle.

        Where the model sees clips, the vectors are those of the events that were completed.
        """
        thumbnails = tuple(self._thumbnail(self._nearest(event, np.array([event.middle]))[0]) for event in events)
        if self._clip_vectors_ED is not None:
            vectors_ED = self._clip_vectors_ED
            assert len(vectors_ED) == len(events)
        else:
            members = [self._members(event) for event in events]
            vectors_SD = self._embedded(np.concatenate(members))
            vectors_ED = np.stack([average_direction(own) for own in np.split(vectors_SD, _ends(members)[:-1])])
        return vectors_ED, thumbnails

    def looks(self, events: Sequence[Event]) -> tuple[NDArray[np.int8], ...]:
        """The directions of different keyframes of each event ``int8 [K, D]``, evenly chosen where there are many.

        None where the model sees clips.
        """
        if self._clip_embedder is not None:
            return ()
        rows_S = np.array(self._rows)
        members = [self._members(event) for event in events]
        different = [indexes[np.unique(rows_S[indexes], return_index=True)[1]] for indexes in members]
        kept = [_at_most(indexes, MOST_LOOKS) for indexes in different]
        vectors_SD = self._embedded(np.concatenate(kept))
        return tuple(map(rounded, np.split(vectors_SD, _ends(kept)[:-1])))

    @cached_property
    def _seconds(self) -> NDArray[np.float64]:
        """When the keyframes so far are shown ``[S]``."""
        return self._taken.array

    def _members(self, event: Event) -> NDArray[np.intp]:
        """The keyframes that stand for an event: some that are evenly spread over it, and those embedded already."""
        inside = np.flatnonzero(_inside(self._seconds, event))
        embedded = [index for index in inside.tolist() if self._rows[index] in self._places]
        spread = self._nearest(event, evenly_inside(event, self._wanted(event)))
        return np.union1d(spread, np.array(embedded, np.intp))

    def _wanted(self, event: Event) -> int:
        return max(1, round(event.duration / (APART * self.request.interval)))

    def _nearest(self, event: Event, seconds_T: NDArray[np.float64]) -> NDArray[np.intp]:
        """Of each time, the nearest keyframe inside an event ``[T]``."""
        inside = np.flatnonzero(_inside(self._seconds, event))
        return inside[np.abs(self._seconds[inside] - seconds_T[:, None]).argmin(axis=1)]

    def _descriptors(self, indexes: NDArray[np.intp]) -> Descriptors:
        if not len(indexes):
            return Descriptors.empty()
        seconds = self._seconds[indexes]
        order = np.argsort(seconds)
        return Descriptors(seconds[order], self._embedded(indexes[order]))

    def _embedded(self, indexes: NDArray[np.intp]) -> NDArray[np.float32]:
        """The vectors of some keyframes ``float32 [S, D]``."""
        rows = [self._rows[index] for index in indexes.tolist()]
        self._embed(row for row in dict.fromkeys(rows) if row not in self._places)
        return self._vectors.array[[self._places[row] for row in rows]]

    def _embed(self, rows: Iterable[int]) -> None:
        """Embed pictures, those of one size together."""
        waiting: list[int] = []
        for row in rows:
            if waiting and (len(waiting) == EMBEDDED_AT_A_TIME or not self._are_alike(row, waiting[0])):
                self._embed_together(waiting)
                waiting = []
            waiting.append(row)
        if waiting:
            self._embed_together(waiting)

    def _are_alike(self, row: int, other: int) -> bool:
        return self._pictures.size(row) == self._pictures.size(other)

    def _embed_together(self, rows: Sequence[int]) -> None:
        if isinstance(self._embedder, PictureEmbedder):
            vectors_SD = self._embedder.embed_pictures([self._pictures.jpeg(row) for row in rows])
        else:
            vectors_SD = self._embedder.embed_frames(np.stack([self._pictures[row] for row in rows]))
        self._vectors.extend(vectors_SD)
        for row in rows:
            self._places[row] = len(self._places)

    def _thumbnail(self, index: int) -> bytes:
        return jpeg(self._pictures[self._rows[index]], self._thumbnail_width)


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


def _ends(parts: Sequence[NDArray[np.intp]]) -> NDArray[np.intp]:
    """Where each of some parts ends that stand one behind the other."""
    return np.cumsum([len(part) for part in parts])


def _at_most(indexes: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """So many at most, evenly chosen."""
    count = len(indexes)
    return indexes if count <= most else indexes[((np.arange(most) + 0.5) * count / most).astype(np.int64)]
