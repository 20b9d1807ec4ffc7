"""Events for models that see clips: frames of each, read when the events are known, and looked at together.

Keyframes are taken before anybody knows where events begin. A model of pictures embeds them at once; one of clips
would look at each as at a whole clip. So where clips are embedded, keyframes only tell where a long event changes and
what it looks like, for which coarse pictures do.

Shape legend: T frames, H height, W width, E events, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from marc.memory.descriptors import BlockDescriptors, block_means
from marc.memory.events import evenly_inside
from marc.types import Event
from marc.video import read_frames

READ_TIMEOUT = 300.0
_FRAMES_AT_A_TIME = 64


@runtime_checkable
class ClipEmbedder(Protocol):
    """What makes vectors of clips; `marc.memory.EventEmbedder` does where its model sees them."""

    @property
    def image_size(self) -> int:
        """Longer side in pixels of the picture that the model sees."""
        ...

    @property
    def clip_frames(self) -> int:
        """Frames of an event that the model looks at together; 1 if it sees pictures one by one."""
        ...

    def embed_events(
        self, frames_per_event: Sequence[NDArray[np.uint8]], seconds_per_event: Sequence[NDArray[np.float64]]
    ) -> NDArray[np.float32]:
        """One unit vector per event ``float32 [E, D]``; see `marc.memory.EventEmbedder.embed_events`."""
        ...


def clip_embedder_of(embedder: object) -> ClipEmbedder | None:
    """A model that looks at the frames of an event together, as such; None if it sees pictures one by one."""
    return embedder if isinstance(embedder, ClipEmbedder) and embedder.clip_frames > 1 else None


class CoarsePictures:
    """Stands in for a model of clips where single frames are compared.

    Args:
        image_size: Of the model, see `marc.memory.keyframes.FrameEmbedder`.
    """

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    def embed_frames(self, frames_THWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Unit vectors ``float32 [T, 288]`` of the mean colours of 6 x 8 blocks, and of what they lack to white."""
        means = block_means(frames_THWC, BlockDescriptors.ROWS, BlockDescriptors.COLUMNS)
        means_TD = means.reshape(len(frames_THWC), -1)
        vectors_TD = np.concatenate([means_TD, 255 - means_TD], axis=1)
        unit_TD: NDArray[np.float32] = vectors_TD / np.linalg.norm(vectors_TD, axis=1, keepdims=True)
        return unit_TD


def embed_clips(video: str | Path, events: Sequence[Event], embedder: ClipEmbedder) -> NDArray[np.float32]:
    """The vectors of events as clips ``float32 [E, D]``, from frames evenly spread over each.

    Raises:
        VideoError: The video cannot be read.
    """
    together = max(1, _FRAMES_AT_A_TIME // embedder.clip_frames)
    vectors = []
    for first in range(0, len(events), together):
        some = events[first : first + together]
        times = [evenly_inside(event, embedder.clip_frames) for event in some]
        pixels = 2 * embedder.image_size**2
        frames = read_frames(
            video, np.concatenate(times), min_pixels=1, max_pixels=pixels, factor=2, timeout=READ_TIMEOUT
        )
        clips = np.split(frames.rgb, len(some))
        since_start = [seconds - event.start for seconds, event in zip(times, some, strict=True)]
        vectors.append(embedder.embed_events(clips, since_start))
    return np.concatenate(vectors)
