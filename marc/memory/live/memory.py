"""A memory that grows with a source that does not end.

    memory = LiveMemory("camera", embedder)
    for frame, second in camera:
        memory.push(frame, second)  # uint8 [H, W, 3], and its time
    assistant.ask(memory, "What happened in the garden?")

Every frame is shown, small, to a shot detector; some of a second are kept in full size, as JPEG, and one in a few
seconds of these is embedded. An event is closed when the detector knows the cut at its end: it keeps the mean
direction of its embedded frames, a thumbnail, and a few pairs of frames at reduced size, so that a model can look at
them again. Where there is no more room, neighbouring events become chapters (`marc.memory.live.chapters`).

What is pushed is on the disk a second later at most, and is found there by other processes (`StoredWatch`). While the
disk takes nothing, the last seconds are kept in memory and the event stays open. One thread pushes; any thread may ask
for a snapshot.

Shape legend: T frames, H height, W width, D embedding dimensions.
"""

from __future__ import annotations

import io
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from marc.io import message_of
from marc.memory.descriptors import Descriptors
from marc.memory.events import strongest_change
from marc.memory.keyframes import jpeg
from marc.memory.live.chapters import has_room, joined, nearest_pair, pairs_kept
from marc.memory.live.clock import SourceClock
from marc.memory.live.detection import SLOWEST, SteadyRate, live_detector
from marc.memory.live.options import LiveOptions
from marc.memory.live.records import DamagedRecordError
from marc.memory.live.snapshot import Gap, KeptFrame, LiveSnapshot, Source
from marc.memory.live.store import LiveStore, snapshot_of, watch_folder
from marc.memory.options import MemoryOptions
from marc.memory.vectors import average_direction
from marc.types import FRAMES_PER_GRID, Event, Frames, VideoInfo
from marc.video.sampling import frame_size

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
"""What was kept is on the disk after so many seconds, of the source or of the clock on the wall."""
LEAST_FLUSH = 0.1
"""Seconds on the wall between two writings, where the source is much faster than the wall."""
QUALITY = 90
"""Of the kept frames, as JPEG."""


class LiveMemory:
    """A memory to which frames are pushed.

    Args:
        name: What it is called; the memory of this name goes on if there is one.
        embedder: Embeds frames and questions.
        options: What is kept.
        memory: How events are cut and embedded.
        source: What is watched.
        folder: Of all watched sources; ``None``: ``~/.local/share/marc/watch``.

    Attributes:
        name: What it is called.
        embedder: Embeds frames and questions.
        options: What is kept.
        problem: Why nothing can be written; empty while that goes well.

    Raises:
        ValueError: Another process writes it, it was begun with other settings, or an option is wrong.
        OSError: It cannot be written.
    """

    def __init__(
        self,
        name: str,
        embedder: EventEmbedder,
        options: LiveOptions | None = None,
        memory: MemoryOptions | None = None,
        *,
        source: Source = Source(),
        folder: str | Path | None = None,
    ) -> None:
        self.name, self.embedder = name, embedder
        self.options, self._cutting = options or LiveOptions(), memory or MemoryOptions()
        self._source = source.place
        self._settings = {
            "name": name,
            "source": source.place,
            "embedder": embedder.identity["fingerprint"],
            "precision": embedder.identity["precision"],
            "options": asdict(self.options),
            "cutting": asdict(self._cutting),
            "rate": source.rate,
        }
        self._detector = live_detector(self._cutting.segmenter, str(embedder.device))
        self._store = LiveStore(watch_folder(name, folder), self._settings, self.options)
        self._lock = threading.RLock()
        self._recent: deque[KeptFrame] = deque(self._store.recent)
        self._recent_bytes = sum(len(frame.jpeg) for frame in self._recent)
        self._unwritten: list[KeptFrame] = []
        self._clock = SourceClock(self.options.gap_seconds, self._seen_before())
        self._open_start = self._opened_before()
        self._next_kept = self._next_embedded = self._next_split = 0.0
        self._written_at, self._written_until = time.monotonic(), self.until
        self._size = (0, 0)
        self.problem = ""
        self._start_detecting()

    def _seen_before(self) -> float | None:
        events = self._store.state.events
        ends = [self._recent[-1].second] if self._recent else []
        ends += [events[-1].span.end] if events else []
        return max(ends, default=None)

    def _opened_before(self) -> float:
        """Since when the event lasts that was not over when this memory was left."""
        events = self._store.state.events
        over = events[-1].span.end if events else 0.0
        return max(over, max((gap.end for gap in self._store.state.gaps), default=0.0))

    def _start_detecting(self) -> None:
        self._steady = SteadyRate()
        info = VideoInfo(self._source, *self.detector_size, 1 / SLOWEST, SLOWEST, 1, "")
        self._detector.start(info)

    @property
    def until(self) -> float:
        """The time of the latest frame, or of the end of a source that is over; 0 before the first."""
        return self._clock.latest or 0.0

    @property
    def detector_size(self) -> tuple[int, int]:
        """Width and height of the frames that `push_small` takes."""
        return self._detector.frame_size or (2, 2)

    @property
    def closed(self) -> int:
        """Events that were ever closed."""
        return self._store.state.closed

    @property
    def told(self) -> dict[str, float]:
        """Questions that waited and were told, with the times."""
        return dict(self._store.state.told)

    @property
    def ended(self) -> float | None:
        """When the source had come to its end; None: it has not."""
        return self._store.state.ended

    @property
    def newest_embedded(self) -> KeptFrame | None:
        """The last frame that was embedded; None if there is none among the last seconds."""
        with self._lock:
            return next((frame for frame in reversed(self._recent) if frame.vector is not None), None)

    def push(self, frames: NDArray[np.uint8], seconds: float | Sequence[float] | NDArray[np.float64]) -> None:
        """Takes the next frames.

        Args:
            frames: ``uint8 [T, H, W, 3]``, or one frame ``[H, W, 3]``; their size may change from call to call.
            seconds: The times of the frames by the source's clock, T numbers, or one.

        Raises:
            ValueError: If they are no frames, or a time is no number.
        """
        rgb_THWC = frames[None] if frames.ndim == 3 else frames
        pushed = Frames(rgb_THWC, np.atleast_1d(np.asarray(seconds, np.float64)), self._source)
        for rgb_HWC, second in zip(pushed.rgb, pushed.seconds.tolist(), strict=True):
            with self._lock:
                at = self._arrived(second)
                self._look(_small(rgb_HWC, self.detector_size), at)
                if at >= self._next_kept:
                    self._keep(rgb_HWC, at)
                self._tidy()

    def push_small(self, frames: Frames) -> None:
        """Takes frames of the shot detector's size, every one of the source, from whoever decodes it in two sizes."""
        for rgb_HWC, second in zip(frames.rgb, frames.seconds.tolist(), strict=True):
            with self._lock:
                self._look(rgb_HWC, self._arrived(second))
                self._tidy()

    def push_kept(self, frames: Frames) -> None:
        """Takes frames in full size, `LiveOptions.recent_fps` of them a second, that `push_small` was given before."""
        for rgb_HWC, second in zip(frames.rgb, frames.seconds.tolist(), strict=True):
            with self._lock:
                self._keep(rgb_HWC, min(self._clock.shifted(second), self.until))
                self._tidy()

    def go_on(self) -> None:
        """The source was lost and is there again, with a clock of its own: what lies between on the wall is a gap."""
        with self._lock:
            if self._recent:
                last = self._recent[-1]
                self._clock.restart(last.second + max(0.0, time.time() - last.at))

    def flush(self) -> None:
        """Has the disk hold everything that was kept.

        Raises:
            OSError: It cannot be written.
        """
        with self._lock:
            self._written_at, self._written_until = time.monotonic(), self.until
            self._store.keep(self._unwritten, self._open_start)
            self._unwritten, self.problem = [], ""

    def end(self, second: float | None = None) -> None:
        """The source is over: closes the last event.

        Args:
            second: Where it ends by its own clock, if that is known; None: when its last frame has been shown for as
                long as the one before.
        """
        with self._lock:
            if self.ended is not None and self.until <= self.ended:
                return
            for transition in self._detector.finish(self.until):
                self._cut(transition.boundary)
            self.flush()
            self._close(self._clock.finish(second, 1 / self.options.recent_fps))
            self._store.add({"kind": "ended", "second": self.until})

    def tell(self, question: str, second: float) -> None:
        """Notes that a question that waited was told, so that it is not told again."""
        with self._lock, self._going_on():
            self._store.add({"kind": "told", "question": question, "second": second})

    def close(self) -> None:
        """Writes what is left and lets others write it; the source may go on later under the same name."""
        try:
            self.flush()
        finally:
            self._store.close()

    def snapshot(self) -> LiveSnapshot:
        """What is known now."""
        with self._lock:
            now = snapshot_of(self._settings, self._store.state, self._recent, self._open_start)
            return replace(now, problem=self.problem)

    def _arrived(self, second: float) -> float:
        """The time of the next frame; a gap or a clock that fell back ends the event before it."""
        at = self._clock.time_of(second)
        for gap in self._clock.take_gaps():
            self._note(gap)
        return at

    def _note(self, gap: Gap) -> None:
        logger.warning("%s: %s at %.1f s", self.name, gap.why, gap.start)
        self._finish_shots()
        self._close(min(gap.start + 1 / self.options.recent_fps, gap.end))
        with self._going_on():
            self._store.add({"kind": "gap", **vars(gap)})
        self._open_start = self._next_kept = gap.end

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Goes on without what cannot be written; it is said, once."""
        try:
            yield
        except OSError as error:
            if not self.problem:
                logger.warning("%s: nothing can be written: %s", self.name, message_of(error))
            self.problem = message_of(error)

    def _finish_shots(self) -> None:
        for transition in self._detector.finish(self.until):
            self._cut(transition.boundary)
        self._start_detecting()

    def _look(self, small_HWC: NDArray[np.uint8], at: float) -> None:
        """Shows a frame to the detector, and closes the event that it finds to be over."""
        shown = self._steady.shown(Frames(small_HWC[None], np.array([at]), ""))
        for transition in self._detector.process(shown) if len(shown) else ():
            self._cut(transition.boundary)

    def _keep(self, rgb_HWC: NDArray[np.uint8], at: float) -> None:
        """Keeps a frame in full size, embedded if one is due."""
        height, width = rgb_HWC.shape[:2]
        if self._size not in ((0, 0), (width, height)):
            self._resize(at)
        self._size = width, height
        vector = None
        if at >= self._next_embedded:
            (vector,) = self.embedder.embed_frames(rgb_HWC[None])
            self._next_embedded = at + self._cutting.seconds_per_frame
        frame = KeptFrame(at, _as_jpeg(Image.fromarray(rgb_HWC)), (width, height), vector, time.time())
        self._recent.append(frame)
        self._unwritten.append(frame)
        self._recent_bytes += len(frame.jpeg)
        step = 1 / self.options.recent_fps
        self._next_kept = self._next_kept + step if self._next_kept + step > at else at + step

    def _resize(self, at: float) -> None:
        """The source's size has changed: an event has frames of one size."""
        logger.info("%s: the size of the frames changes at %.1f s", self.name, at)
        self._finish_shots()
        self._close(at)

    def _tidy(self) -> None:
        """Splits an event that lasts too long, drops what is too old, and writes what is due."""
        longest = self._cutting.max_event_seconds
        if self.until - self._open_start > longest and self.until >= self._next_split:
            self._split(Event(self._open_start, self._open_start + longest))
            self._next_split = self.until + FLUSH_SECONDS if self.problem else 0.0
        self._drop_old()
        on_wall = time.monotonic() - self._written_at
        if on_wall >= FLUSH_SECONDS or (self.until - self._written_until >= FLUSH_SECONDS and on_wall >= LEAST_FLUSH):
            with self._going_on():
                self.flush()

    def _drop_old(self) -> None:
        """Frames go that are older than the last seconds and not of the open event, or for which there is no room."""
        before = min(self.until - self.options.recent_seconds, self._open_start)
        room = self.options.recent_mib * 2**20
        while len(self._recent) > FRAMES_PER_GRID and (self._recent[0].second < before or self._recent_bytes > room):
            gone = self._recent.popleft()
            self._recent_bytes -= len(gone.jpeg)
            if self._unwritten and self._unwritten[0] is gone:
                del self._unwritten[0]

    def _split(self, event: Event) -> None:
        embedded = [frame for frame in self._inside(event) if frame.vector is not None]
        descriptors = Descriptors.empty()
        if embedded:
            vectors = np.stack([frame.vector for frame in embedded if frame.vector is not None])
            descriptors = Descriptors(np.array([frame.second for frame in embedded]), vectors)
        self._close(strongest_change(event, descriptors, self._cutting.min_event_seconds))
        if self._open_start == event.start and not self._inside(event):
            logger.warning("%s: nothing is left of %.1f-%.1f s", self.name, event.start, event.end)
            self._open_start = event.end

    def _cut(self, boundary: float) -> None:
        """A shot begins: closes the event before it, unless that is too short."""
        if boundary - self._open_start >= self._cutting.min_event_seconds:
            self._close(boundary)

    def _inside(self, event: Event) -> list[KeptFrame]:
        return [frame for frame in self._recent if event.start <= frame.second < event.end]

    def _close(self, end: float) -> None:
        """Closes the open event, if it shows anything; else the next one begins where it began."""
        frames = self._inside(Event(self._open_start, end)) if end > self._open_start else []
        if not frames:
            return
        state, size = self._store.state, frames[0].size
        kept = _paired([frame for frame in frames if frame.size == size], self.options.event_frames)
        middle = kept[len(kept) // 2]
        limits = {"min_pixels": 1, "max_pixels": self.options.event_pixels, "factor": 2}
        width, height = frame_size(*size, source=self.name, **limits)
        head = {
            "kind": "event",
            "number": state.next_number,
            "start": self._open_start,
            "end": end,
            "parts": 1,
            "dropped": 0,
            "seconds": [frame.second for frame in kept],
            "size": [width, height],
        }
        pictures = [_reduced(frame.jpeg, (width, height)) for frame in kept]
        thumbnail = jpeg(np.asarray(Image.open(io.BytesIO(middle.jpeg))), self._cutting.thumbnail_width)
        with self._going_on():
            self.flush()  # whoever reads the event finds the source seen until its end
            self._store.add(head, self._vector_of(frames), thumbnail, *pictures)
            self._open_start = end
            self._make_room()

    def _vector_of(self, frames: Sequence[KeptFrame]) -> NDArray[np.float32]:
        """The mean direction of the embedded frames of an event; one in its middle is embedded if there is none."""
        vectors = [frame.vector for frame in frames if frame.vector is not None]
        if not vectors:
            middle = np.asarray(Image.open(io.BytesIO(frames[len(frames) // 2].jpeg)))
            vectors = list(self.embedder.embed_frames(middle[None]))
        return average_direction(np.stack(vectors))

    def _make_room(self) -> None:
        """Joins events to chapters until what is left has room."""
        while not has_room(self._store.state, self.options):
            state = self._store.state
            index = nearest_pair(state.events, self.until - self.options.whole_seconds)
            first, second = state.events[index], state.events[index + 1]
            try:
                head, vector, pictures = joined(first, second, state.next_number, self.options.event_frames)
            except DamagedRecordError:
                self._store.drop_damaged([first, second])
                continue
            self._store.add(head, vector, *pictures)
            logger.info(
                "%s: no more room: %.1f-%.1f s and %.1f-%.1f s are one chapter now, %d frames are forgotten",
                *(self.name, first.span.start, first.span.end, second.span.start, second.span.end),
                head["dropped"] - first.dropped - second.dropped,
            )


def _paired(frames: Sequence[KeptFrame], most: int) -> list[KeptFrame]:
    """At most so many frames in pairs of neighbours, evenly chosen; a single one is shown twice."""
    if len(frames) == 1:
        return [frames[0], frames[0]]
    return [frames[index] for index in pairs_kept(len(frames), most)]


def _small(rgb_HWC: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A frame as the detector wants it."""
    return np.asarray(Image.fromarray(rgb_HWC).resize(size, Image.Resampling.BOX))


def _reduced(picture: bytes, size: tuple[int, int]) -> bytes:
    """A JPEG at another size; as it is if it has that."""
    image = Image.open(io.BytesIO(picture))
    if image.size == size:
        return picture
    image.draft("RGB", size)
    return _as_jpeg(image.resize(size, Image.Resampling.BICUBIC))


def _as_jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
