"""Remember a video: cut into events, embed a few frames of each, keep the result.

`remember` is what ``marc ask`` calls; a video that is already remembered costs a file read. `marc.memory.workers`
remembers many.

    marc remember holiday/*.mp4 --workers 2
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from marc.memory.detectors import detector_class, make_detector
from marc.memory.events import at_pictures, cut_into_events, long_shots
from marc.memory.keyframes import READ_TIMEOUT, KeyframeCollector
from marc.memory.making import made_alone
from marc.memory.options import MemoryOptions
from marc.memory.shots import Progress, find_shots
from marc.memory.store import (
    MemorySettings,
    VideoMemory,
    content_key,
    find_memory,
    make_folder,
    memory_path,
    save_memory,
)
from marc.types import Event
from marc.version import __version__
from marc.video import probe, read_frames

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder

logger = logging.getLogger(__name__)

LATE = 1.0
"""Seconds by which an event may end after what is known of the video's end."""
REVISION = 10
"""Of what a memory is computed by; raised with every change of cutting, decoding or embedding that changes results."""
_RECORDED_PACKAGES = ("marc-video", "open_clip_torch", "torch", "numpy", "av")


def memory_settings(options: MemoryOptions, embedder: EventEmbedder) -> MemorySettings:
    """Options of a memory and all versions that the result depends on."""
    return MemorySettings(
        marc=f"{__version__}+{REVISION}",
        embedder=embedder.identity["fingerprint"],
        precision=embedder.identity["precision"],
        segmenter=options.segmenter,
        segmenter_version=detector_class(options.segmenter).version(),
        min_seconds=options.min_event_seconds,
        max_seconds=options.max_event_seconds,
        seconds_per_frame=options.seconds_per_frame,
        thumbnail_width=options.thumbnail_width,
    )


def remember(
    video: str | Path,
    embedder: EventEmbedder,
    options: MemoryOptions | None = None,
    *,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> VideoMemory:
    """The memory of a video: read from disk if there is one of this content and these settings, else made and kept.

    Args:
        video: A video file.
        embedder: Embeds the frames; the shot detector runs where it does.
        options: How the video is cut and embedded.
        folder: Where memories are kept; beside the video by default.
        progress: Is told what share of the video has been read.

    Raises:
        ValueError: The video cannot be read (a `marc.video.VideoError`) or an option is wrong.
        OSError: The memory cannot be written.
    """
    return find_or_remember(video, embedder, options or MemoryOptions(), folder=folder, progress=progress)[0]


def find_or_remember(
    video: str | Path,
    embedder: EventEmbedder,
    options: MemoryOptions,
    *,
    folder: str | Path | None,
    progress: Progress | None,
) -> tuple[VideoMemory, bool]:
    """What `remember` does, and whether the memory was there before."""
    if (memory := _remembered(video, embedder, options, folder=folder)) is not None:
        return memory, True
    make_folder(video, folder)
    with made_alone(memory_key(video, embedder, options), progress) as tell:
        if (memory := _remembered(video, embedder, options, folder=folder)) is not None:  # made by who was waited for
            return memory, True
        memory = build_memory(video, embedder, options, tell)
        logger.info("%s: cut into %d events", video, len(memory.events))
        save_memory(memory, memory_path(video, memory.key, folder))
    return memory, False


def memory_key(video: str | Path, embedder: EventEmbedder, options: MemoryOptions) -> str:
    """SHA-256 of a video's content and of all that its memory depends on."""
    return memory_settings(options, embedder).key(content_key(video))


def _remembered(
    video: str | Path, embedder: EventEmbedder, options: MemoryOptions, *, folder: str | Path | None
) -> VideoMemory | None:
    """The memory of a video on disk, if there is one that fits."""
    memory = find_memory(video, memory_settings(options, embedder), folder)
    if memory is not None and (problem := _misfit(memory, video, embedder)) is not None:
        logger.warning("%s: its memory is damaged: %s; the video is remembered again", video, problem)
        return None
    return memory


def _misfit(memory: VideoMemory, video: str | Path, embedder: EventEmbedder) -> str | None:
    """What a memory says that is not so of this video and this embedder; None if nothing."""
    found, wanted = memory.embeddings.shape[1], embedder.dimension
    if found != wanted:
        return f"vectors of {found} dimensions, not {wanted}"
    end = memory.events[-1].end
    if end > probe(video).duration + LATE:  # some containers say less than there is
        last = float(read_frames(video, [end], min_pixels=1, max_pixels=1024, timeout=READ_TIMEOUT).seconds[-1])
        if end > last + LATE:
            return f"events up to {end:g} s, where the video's last picture is at {last:g} s"
    return None


def build_memory(
    video: str | Path, embedder: EventEmbedder, options: MemoryOptions, progress: Progress | None = None
) -> VideoMemory:
    """Cut a video into events and embed them, without touching the disk; see `remember`."""
    content = content_key(video)
    keyframes = KeyframeCollector(
        embedder, interval=options.seconds_per_frame, thumbnail_width=options.thumbnail_width
    )
    detector = make_detector(options.segmenter, str(embedder.device))
    shots = find_shots(video, detector, [keyframes], progress=progress)
    limits = {"min_seconds": options.min_event_seconds, "max_seconds": options.max_event_seconds}
    long = long_shots(shots.boundaries, shots.duration, **limits)
    descriptors = keyframes.descriptors_in(long) if len(keyframes) else shots.descriptors
    events = cut_into_events(shots.boundaries, shots.duration, descriptors, **limits)
    events = at_pictures(events, probe(video).starts, options.seconds_per_frame)
    keyframes.complete(video, events)
    memory = described(video, content, events, keyframes, embedder, options)
    if progress is not None:
        progress(1.0)
    return memory


def described(
    video: str | Path,
    content: str,
    events: Sequence[Event],
    keyframes: KeyframeCollector,
    embedder: EventEmbedder,
    options: MemoryOptions,
) -> VideoMemory:
    """The memory of events, each of which has a keyframe at least."""
    embeddings_ED, thumbnails = keyframes.describe(events)
    return VideoMemory(
        source=str(Path(video).resolve()),
        content=content,
        events=tuple(events),
        embeddings=embeddings_ED,
        thumbnails=thumbnails,
        looks=keyframes.looks(events),
        settings=memory_settings(options, embedder),
        versions={"embedder": embedder.name} | {package: version(package) for package in _RECORDED_PACKAGES},
    )
