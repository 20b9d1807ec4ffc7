"""What is known of a watched source at one moment: events, chapters, and the last seconds.

Times are seconds since the first frame of the source.

Shape legend: E events, D embedding dimensions.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from marc.memory.live.records import Record, as_written
from marc.types import Event

MOST_NOTED = 100
"""Gaps and told questions that are remembered; older ones are counted."""


@dataclass(frozen=True)
class Source:
    """What is watched.

    Attributes:
        place: Its file, address or device; empty: frames come from a program.
        rate: Frames per second; 0: unknown.
    """

    place: str = ""
    rate: float = 0.0


@dataclass(frozen=True)
class KeptFrame:
    """A picture of a source, kept as JPEG.

    Attributes:
        second: When it was shown.
        jpeg: The picture.
        size: Its width and height in pixels.
        vector: Its unit vector ``float32 [D]``; None: it was not embedded.
        at: When it was kept by the clock of the machine, in seconds since 1970.
    """

    second: float
    jpeg: bytes = field(repr=False)
    size: tuple[int, int]
    vector: NDArray[np.float32] | None = field(default=None, repr=False)
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """An event that is over, or a chapter of several.

    Attributes:
        number: Its own in this memory.
        span: When it was.
        parts: Events that it consists of; 1 of an event.
        dropped: Frames of these that made room for others.
        seconds: When the kept frames were shown.
        size: Their width and height in pixels.
        record: Has its vector and pictures.
    """

    number: int
    span: Event
    parts: int
    dropped: int
    seconds: tuple[float, ...]
    size: tuple[int, int]
    record: Record

    @classmethod
    def of(cls, record: Record) -> LiveEvent:
        """The event that a record describes."""
        head = record.head
        width, height = map(int, head["size"])
        span, seconds = Event(float(head["start"]), float(head["end"])), tuple(map(float, head["seconds"]))
        if record.vector is None or not seconds or len(head["lengths"]) != len(seconds) + 1:
            raise ValueError("an event has a vector, a thumbnail and a time for each of its frames")
        return cls(
            int(head["number"]), span, int(head["parts"]), int(head["dropped"]), seconds, (width, height), record
        )

    @property
    def vector(self) -> NDArray[np.float32]:
        """Its unit vector ``float32 [D]``."""
        assert self.record.vector is not None
        return self.record.vector

    def thumbnail(self) -> bytes:
        """A small picture of it, as JPEG."""
        return self.record.pictures()[0]

    def frames(self) -> tuple[KeptFrame, ...]:
        """The kept frames in time order."""
        pictures = self.record.pictures()[1:]
        return tuple(KeptFrame(at, jpeg, self.size) for at, jpeg in zip(self.seconds, pictures, strict=True))


@dataclass(frozen=True)
class Gap:
    """A stretch of which nothing was seen, or where the source's clock was not believed.

    Attributes:
        start: When it began.
        end: When it was over; as ``start`` where the clock fell back.
        why: In a few words.
    """

    start: float
    end: float
    why: str


@dataclass(frozen=True)
class LiveSnapshot:
    """What is known of a source at one moment; it does not change when the source goes on.

    Attributes:
        name: What the memory is called.
        source: What is watched.
        events: Events and chapters in time order.
        recent: The frames of the last seconds in full size, in time order.
        open_start: Since when the event lasts that is not over.
        gaps: The latest stretches of which nothing was seen.
        rate: Frames per second of the source; 0: unknown.
        embedder: Fingerprint of the dual encoder that its vectors are of.
        problem: Why nothing is written at the moment; empty otherwise.
        start: Where the stretch begins that is asked about.
        end: Where it ends; None: now.
        ended: When the source was over; None: it goes on.
    """

    name: str
    source: str
    events: tuple[LiveEvent, ...] = field(repr=False)
    recent: tuple[KeptFrame, ...] = field(repr=False)
    open_start: float
    gaps: tuple[Gap, ...] = ()
    rate: float = 0.0
    embedder: str = ""
    problem: str = ""
    start: float = 0.0
    end: float | None = None
    ended: float | None = None

    @property
    def until(self) -> float:
        """The time of the last frame that was kept; 0 if there is none."""
        if self.recent:
            return self.recent[-1].second
        return self.events[-1].span.end if self.events else 0.0

    @property
    def seen(self) -> float:
        """Until when the source was seen: its end, or the last frame that was kept."""
        return self.until if self.ended is None else self.ended

    @property
    def is_empty(self) -> bool:
        """Whether nothing was seen yet."""
        return not (self.events or self.recent)

    def snapshot(self) -> LiveSnapshot:
        """Itself."""
        return self

    def between(self, start: float | None, end: float | None) -> LiveSnapshot:
        """The same, asked about a stretch only.

        Raises:
            ValueError: If the stretch is none, or nothing of it was seen.
        """
        begin = start or 0.0
        if begin >= (self.seen if end is None else end) and not (begin == 0 and end is None):
            raise ValueError(
                f"{self.name}: it was seen until {self.seen:.1f} s, and {begin:g} s is not before the end"
            )
        return replace(self, start=begin, end=end)

    def seen_until(self) -> str:
        """Until when the source was seen, by its own time and by the clock on the wall, in words."""
        at = self.recent[-1].at if self.recent else 0.0
        wall = f" ({time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at))})" if at else ""
        return f"{self.name}: seen until {self.seen:.1f} s{wall}"

    def forgotten(self) -> str:
        """What of the source is no longer there, in words; empty if nothing."""
        chapters = [event for event in self.events if event.parts > 1]
        if not chapters:
            return ""
        events, frames = sum(each.parts for each in chapters), sum(each.dropped for each in chapters)
        return (
            f"{self.name}: {events} events before {chapters[-1].span.end:.0f} s are kept as {len(chapters)} chapters; "
            f"{frames} of their frames are forgotten"
        )


@runtime_checkable
class Watched(Protocol):
    """A source that is watched, here or by another process: what a question can be about."""

    def snapshot(self) -> LiveSnapshot:
        """What is known of it now."""
        ...


class LiveState:
    """Events, gaps and told questions, as records say them one after another.

    Attributes:
        events: Events and chapters in time order.
        gaps: The latest ones.
        told: Questions that waited, and the seconds at which they were told.
        size: Bytes of the pictures of all events.
        closed: Events that were ever closed.
        next_number: Of the next event or chapter.
        ended: The time at which the source had come to its end; None: it has not.
    """

    def __init__(self) -> None:
        self.events: list[LiveEvent] = []
        self.gaps: deque[Gap] = deque(maxlen=MOST_NOTED)
        self.told: dict[str, float] = {}
        self.size = 0
        self.closed = self.next_number = 0
        self.ended: float | None = None

    def apply(self, record: Record) -> None:
        """Takes over what the next record says.

        Raises:
            DamagedRecordError: None can say that.
        """
        head = record.head
        with as_written(record.file):
            if head["kind"] == "event":
                self._add(LiveEvent.of(record), head.get("replaces", ()))
            elif head["kind"] == "gap":
                self.gaps.append(Gap(float(head["start"]), float(head["end"]), str(head["why"])))
            elif head["kind"] == "told":
                self.told[str(head["question"])] = float(head["second"])
            elif head["kind"] == "lost":
                self._drop(int(head["number"]))
            elif head["kind"] == "ended":
                self.ended = float(head["second"])

    def _add(self, event: LiveEvent, replaces: Sequence[int]) -> None:
        self.next_number = max(self.next_number, event.number + 1)
        self.ended = None
        first = bisect_left(self.events, event.span.start, key=lambda each: each.span.start)
        gone = self.events[first : first + len(replaces)]
        if [each.number for each in gone] != list(replaces):
            raise ValueError("a chapter replaces neighbours")
        if self.events and self.events[0].vector.shape != event.vector.shape:
            raise ValueError("vectors have different dimensions")
        self.closed += event.parts - sum(each.parts for each in gone)
        self.size += event.record.size - sum(each.record.size for each in gone)
        self.events[first : first + len(replaces)] = [event]

    def _drop(self, number: int) -> None:
        self.size -= sum(each.record.size for each in self.events if each.number == number)
        self.events = [each for each in self.events if each.number != number]

    def heads_of_notes(self) -> list[Mapping[str, Any]]:
        """The records of all that is no event, to be written anew."""
        told = [{"kind": "told", "question": text, "second": second} for text, second in self.told.items()]
        return [*({"kind": "gap", **vars(gap)} for gap in self.gaps), *told]

    def heads_of_the_end(self) -> list[Mapping[str, Any]]:
        """The record that says that the source has ended, if it has; behind all events."""
        return [] if self.ended is None else [{"kind": "ended", "second": self.ended}]
