"""Remember many videos in worker processes: skip what is done, and go on when one fails."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marc.io import cause_of
from marc.memory.addresses import is_address
from marc.memory.detectors import ShotDetector, register_detector, registered_detectors
from marc.memory.index import find_or_remember, memory_settings
from marc.memory.object_notes import ObjectNote, find_note, keep_note
from marc.memory.objects import StoredObject, fetched, look_up, subtitles_state
from marc.memory.options import MemoryOptions
from marc.memory.shots import Progress
from marc.memory.store import VideoMemory, find_memory_of
from marc.terminal import log_harmlessly
from marc.video import Subtitles, VideoError, event_texts, read_subtitles
from marc.video.reading import TIMEOUT, check_file

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder

REPORT_INTERVAL = 0.5  # seconds between reports of progress
DIED = "the process that worked on it died, twice (out of memory, or a crash in a library)"


@dataclass(frozen=True)
class Outcome:
    """What became of one of many videos.

    Attributes:
        video: Its path, as given.
        memory: Its memory, or None if it failed.
        error: What went wrong, beginning with the path, or None.
        known: Whether it was remembered before.
        texts: What is said in each event, empty where nothing is.
        subtitles: Where that stands, see `marc.video.Subtitles`; empty if nowhere.
        remark: What the user should know about the subtitles, or None.
    """

    video: str
    memory: VideoMemory | None
    error: str | None = None
    known: bool = False
    texts: tuple[str, ...] = ()
    subtitles: str = ""
    remark: str | None = None


class EmbedderUnavailableError(ValueError):
    """The embedding model cannot be loaded: no video can be remembered."""


def remember_all(
    videos: Sequence[str],
    load_embedder: Callable[[], EventEmbedder],
    options: MemoryOptions | None = None,
    *,
    folder: str | Path | None = None,
    subtitles: str = "auto",
    workers: int = 1,
    progress: Progress | None = None,
) -> Iterator[Outcome]:
    """Remember videos in worker processes and yield what became of each as it is done.

    A video that cannot be read is an `Outcome` with an error; missing and empty files are found before a process
    starts. When a worker process dies (out of memory, a crash in a decoder), the videos that were being worked on are
    tried once more, one at a time; the one that kills its worker again has failed. Interrupting or killing this
    process loses the videos in work only: the next run goes on.

    Args:
        videos: Paths, and addresses of objects (`marc.memory.objects`).
        load_embedder: Called once in every worker; must be picklable, as
            ``functools.partial(EventEmbedder.from_pretrained, "tiny")`` is.
        options: How videos are cut and embedded. A segmenter that was registered must be a class that workers can
            import.
        folder: Where memories are kept; beside each video by default, of objects in the user's cache folder.
        subtitles: Which ones are read, as in `marc.video.read_subtitles`; they are no part of a memory. With
            ``"auto"`` those that cannot be read are left out with a remark, else the video has failed.
        workers: Number of processes.
        progress: Is told, twice a second, what share of the work is done, counted in videos and parts of videos.

    Raises:
        EmbedderUnavailableError: The embedder cannot be loaded.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    task = Task(load_embedder, options or MemoryOptions(), folder, subtitles)
    outcomes = {video: missing(video) for video in videos}
    shares = _Shares({video: index for index, video in enumerate(outcomes)}, progress)
    yield from (shares.done(outcome) for outcome in outcomes.values() if outcome)
    queue, suspects = deque(video for video, outcome in outcomes.items() if outcome is None), deque[str]()
    threads = max(1, (os.cpu_count() or 1) // workers)
    start = _WorkerStart(threads, shares, registered_detectors(task.options.segmenter))
    while queue or suspects:
        is_last_try = not queue
        pool = _WorkerPool(start, 1 if is_last_try else workers)
        for outcome in pool.work_through(suspects if is_last_try else queue, task):
            yield shares.done(outcome)
        if is_last_try:
            yield from (shares.done(Outcome(video, None, f"{video}: {DIED}")) for video in pool.in_work)
        else:
            suspects.extend(pool.in_work)


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

    def done(self, outcome: Outcome) -> Outcome:
        self.set(outcome.video, 1.0)
        self.report()
        return outcome

    def report(self) -> None:
        if self._progress is not None:
            self._progress(sum(self._done) / len(self._done))


_EMBEDDERS: list[EventEmbedder] = []
_SHARES: list[_Shares] = []


@dataclass(frozen=True)
class _WorkerStart:
    """What a worker process begins with.

    It is given its share of the cores, and ends when its parent is gone, even by kill -9. Its threads sleep while they
    wait instead of spinning: the decoder works on the same cores.
    """

    threads: int
    shares: _Shares
    detectors: dict[str, str | type[ShotDetector]]

    def __call__(self) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", str(self.threads))
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        log_harmlessly()
        _SHARES.append(self.shares)
        for name, detector in self.detectors.items():
            register_detector(name, detector)
        threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@dataclass(frozen=True)
class Task:
    """What a worker needs to know to remember any of the videos.

    Attributes:
        load_embedder: Called once in a process.
        options: How videos are cut and embedded.
        folder: Where memories are kept; None: beside each video.
        subtitles: Which ones are read.
    """

    load_embedder: Callable[[], EventEmbedder]
    options: MemoryOptions
    folder: str | Path | None
    subtitles: str

    def __call__(self, video: str) -> Outcome:
        """What becomes of one video in a worker of this machine, whose share others are told."""
        (shares,) = _SHARES
        return self.outcome(video, partial(shares.set, video))

    def outcome(self, video: str, progress: Progress | None = None) -> Outcome:
        """What becomes of one video.

        Raises:
            EmbedderUnavailableError: The embedder cannot be loaded.
            ValueError: The video cannot be read.
        """
        if is_address(video):
            return self._outcome_of_object(look_up(video), progress)
        memory, known = find_or_remember(video, self._embedder(), self.options, folder=self.folder, progress=progress)
        return _outcome(video, memory, *self._subtitles(video), known=known)

    def _outcome_of_object(self, stored: StoredObject, progress: Progress | None) -> Outcome:
        """What becomes of an object, which is fetched unless its memory and its subtitles are there.

        Subtitles that cannot be read are not noted: whoever looks next tries again.
        """
        folder = self.folder or stored.folder
        settings = memory_settings(self.options, self._embedder())
        note = find_note(stored, folder)
        beside = subtitles_state(stored.address) if self.subtitles == "auto" else ""
        if note is not None and (note.choice, note.beside) == (self.subtitles, beside):
            memory = find_memory_of(note.content, stored.address, settings, folder)
            if memory is not None:
                return _outcome(stored.address, memory, note.subtitles, None, known=True)
        with fetched(stored) as file, _named(file, stored.address):
            memory, known = find_or_remember(file, self._embedder(), self.options, folder=folder, progress=progress)
            subtitles, remark = self._subtitles(str(file))
        if remark is not None:
            remark = remark.replace(str(file.parent), stored.address.rpartition("/")[0])
        else:
            keep_note(ObjectNote(memory.content, self.subtitles, beside, subtitles), stored, folder)
        return _outcome(stored.address, replace(memory, source=stored.address), subtitles, remark, known=known)

    def _subtitles(self, video: str) -> tuple[Subtitles, str | None]:
        try:
            return read_subtitles(video, self.subtitles), None
        except VideoError as error:
            if self.subtitles != "auto":
                raise
            return Subtitles(), f"subtitles that cannot be read are left out: {error}"

    def _embedder(self) -> EventEmbedder:
        """That of this worker process, loaded for its first video."""
        if not _EMBEDDERS:
            try:
                _EMBEDDERS.append(self.load_embedder())
            except ValueError as error:
                raise EmbedderUnavailableError(str(error)) from error
        return _EMBEDDERS[0]


def _outcome(video: str, memory: VideoMemory, read: Subtitles, remark: str | None, *, known: bool) -> Outcome:
    texts = tuple(event_texts(read, memory.events))
    return Outcome(video, memory, known=known, texts=texts, subtitles=read.source, remark=remark)


@contextmanager
def _named(copy: Path, address: str) -> Iterator[None]:
    """Has errors name an object where they name its copy."""
    try:
        yield
    except EmbedderUnavailableError:
        raise
    except (ValueError, OSError) as error:
        raise VideoError(cause_of(error).replace(str(copy), address)) from error


class _WorkerPool:
    """Worker processes that work through videos until one of them dies.

    Args:
        start: What each begins with.
        size: Number of processes.

    """

    def __init__(self, start: _WorkerStart, size: int) -> None:
        self._start = start
        self._size = size
        self._running: dict[Future[Outcome], str] = {}
        self._is_broken = False

    def work_through(self, queue: deque[str], task: Task) -> Iterator[Outcome]:
        """Take videos from the queue and yield what became of each; what is left in it was not begun."""
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self._size, mp_context=context, initializer=self._start) as executor:
            while (queue or self._running) and not self._is_broken:
                self._submit(executor, queue, task)
                done = wait(self._running, timeout=REPORT_INTERVAL, return_when=FIRST_COMPLETED).done
                self._start.shares.report()
                for future in done:
                    if isinstance(future.exception(), EmbedderUnavailableError):
                        executor.shutdown(cancel_futures=True)
                        future.result()
                    yield from self._outcome(future)

    @property
    def in_work(self) -> list[str]:
        """After a death, the videos that were being worked on."""
        return list(self._running.values())

    def _submit(self, executor: ProcessPoolExecutor, queue: deque[str], task: Task) -> None:
        """Give every process a video, as long as there are some."""
        while queue and len(self._running) < self._size and not self._is_broken:
            video = queue.popleft()
            try:
                self._running[executor.submit(task, video)] = video
            except BrokenProcessPool:
                queue.appendleft(video)
                self._is_broken = True

    def _outcome(self, future: Future[Outcome]) -> Iterator[Outcome]:
        """What became of a video, unless its process died."""
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            self._is_broken = True
            return
        video = self._running.pop(future)
        yield future.result() if error is None else failure(video, error)


def missing(video: str) -> Outcome | None:
    """What is known of a video before any work: that it is no file with something in it; None if it may be read."""
    if is_address(video):
        return None  # whoever fetches it finds out
    try:
        check_file(video, TIMEOUT)
    except VideoError as error:
        return failure(video, error)
    return None


def failure(video: str, error: BaseException) -> Outcome:
    """What became of a video that raised an error."""
    said = cause_of(error)
    return Outcome(video, None, said if said.startswith(video[:200]) else f"{video}: {said}")
