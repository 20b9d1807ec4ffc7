"""A coarse memory of a video from some of its key frames: at once, where the whole video would have to be read.

A decoder shows a key frame without what lies before it. So `PICTURES` of them, spread over the video, are read and
embedded, and the video is split where they change most, as events without a boundary are (`marc.memory.events`). A
scene between two of them is overlooked, and times are those of key frames.

Shape legend: K key frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marc.memory.clips import clip_embedder_of
from marc.memory.events import cut_into_events
from marc.memory.index import described
from marc.memory.keyframes import READ_TIMEOUT, KeyframeCollector
from marc.memory.options import MemoryOptions
from marc.memory.store import content_key
from marc.types import Event, Frames
from marc.video import key_frame_seconds, probe, read_frames

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder
    from marc.memory.store import VideoMemory

PICTURES = 64
FARTHEST = 60.0
"""Seconds from one key frame to the next above which they are too few to know a video by."""


@dataclass(frozen=True)
class CoarseMemory:
    """What some key frames tell of a video.

    Attributes:
        memory: Its events; not on disk.
        key_frames: Times of all its key frames in seconds, ``float64 [K]``, ascending.
    """

    memory: VideoMemory
    key_frames: NDArray[np.float64]

    def moved(self, seconds_T: NDArray[np.float64], start: float) -> NDArray[np.float64]:
        """The last key frames at or before some times: what costs little to read in their place.

        Args:
            seconds_T: Ascending times.
            start: What lies before it is not wanted.
        """
        before_T = self.key_frames[np.maximum(np.searchsorted(self.key_frames, seconds_T, "right") - 1, 0)]
        return np.where(before_T < start, seconds_T, before_T)


def coarse_memory(video: str | Path, embedder: EventEmbedder, options: MemoryOptions) -> CoarseMemory | None:
    """What some key frames of a video tell, or None where they are too far apart, or the model sees clips.

    Args:
        video: A video file.
        embedder: Embeds them.
        options: How it would be cut; its longest events are longer here where the video is long.

    Raises:
        VideoError: If the video cannot be read.
    """
    if clip_embedder_of(embedder):
        return None
    content, duration = content_key(video), probe(video).duration
    keys_K = key_frame_seconds(video, timeout=READ_TIMEOUT)
    if not len(keys_K) or _widest_gap(keys_K, duration) > FARTHEST:
        return None
    asked = np.unique(nearest(keys_K, duration * (np.arange(PICTURES) + 0.5) / PICTURES))
    collector = KeyframeCollector(
        embedder, interval=options.seconds_per_frame, thumbnail_width=options.thumbnail_width
    )
    pixels = collector.request.max_pixels
    frames = read_frames(video, asked, min_pixels=1, max_pixels=pixels, factor=2, timeout=READ_TIMEOUT)
    collector.consume(Frames(frames.rgb, asked, frames.source))  # a picture's own time may differ in the last digit
    longest = max(options.max_event_seconds, 2 * _widest_gap(asked, duration))  # so that each half has a picture
    limits = {"min_seconds": options.min_event_seconds, "max_seconds": longest}
    events = at_key_frames(cut_into_events([], duration, collector.descriptors, **limits), keys_K)
    return CoarseMemory(described(video, content, events, collector, embedder, options), keys_K)


def _widest_gap(seconds_K: NDArray[np.float64], duration: float) -> float:
    return float(np.diff(seconds_K, prepend=0.0, append=duration).max())


def at_key_frames(events: Sequence[Event], keys_K: NDArray[np.float64]) -> list[Event]:
    """Has every event but the first begin with a key frame, the next one: encoders put them where a shot begins.

    Args:
        events: In time order without gaps; each but the first holds a key frame.
        keys_K: Times of the key frames, ascending.
    """
    starts = [events[0].start, *(float(keys_K[np.searchsorted(keys_K, event.start)]) for event in events[1:])]
    return [Event(start, end) for start, end in zip(starts, [*starts[1:], events[-1].end], strict=True)]


def nearest(keys_K: NDArray[np.float64], seconds_T: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each time, the nearest of ascending times; the earlier of two."""
    after_T = np.searchsorted(keys_K, seconds_T).clip(max=len(keys_K) - 1)
    before_T = np.maximum(after_T - 1, 0)
    is_later_T = keys_K[after_T] - seconds_T < seconds_T - keys_K[before_T]
    return np.where(is_later_T, keys_K[after_T], keys_K[before_T])
