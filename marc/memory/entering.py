"""Putting what many videos are remembered by into the library, as they come.

A library of many small changes is slow: what is written by itself is a fragment of its own, and every change and every
look goes through all of them. So whoever comes soon after another was put in waits, and goes in with those that come
until the pause between two steps is over. Now and then the library is compacted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from marc.memory.library import LibraryError, MemoryLibrary
from marc.memory.workers import Outcome

logger = logging.getLogger(__name__)

TOGETHER = 200
"""Most videos that are put in in one step."""
PAUSE = 2.0
"""Seconds between two steps while videos keep coming."""
COMPACTED_AFTER = 200
"""Steps."""


def entered(
    outcomes: Iterable[Outcome], library: MemoryLibrary, tags: Sequence[str] | None = None
) -> Iterator[Outcome]:
    """Put memories into a library as they are made, and yield what became of each video once it is in.

    What waits is put in when the pause is over, by a thread if nothing comes then. Whoever is killed loses nothing:
    memories that waited are found on disk by the next run, which enters them.

    Args:
        outcomes: Of videos; those that failed are handed on.
        library: Where to.
        tags: Of all these videos; None leaves each the tags that it has.

    Yields:
        The outcomes; those that the library refuses have failed, with its words.
    """
    entrance = _Entrance(library, tags)
    try:
        for outcome in outcomes:
            if outcome.memory is None:
                yield outcome
            else:
                entrance.add(outcome)
            yield from entrance.told()
        entrance.close()
        yield from entrance.told()
    finally:
        entrance.stop_clock()
    _compact(library)


def _compact(library: MemoryLibrary) -> None:
    """Compact a library if it can be; it holds the same without."""
    try:
        library.optimize()
    except LibraryError as error:
        logger.warning("the library could not be compacted and is slower than it could be: %s", error)


class _Entrance:
    """Where memories wait until they are put in together.

    Args:
        library: Where to.
        tags: Of all videos.
    """

    def __init__(self, library: MemoryLibrary, tags: Sequence[str] | None) -> None:
        self._library = library
        self._tags = tags
        self._lock = threading.Lock()
        self._waiting: list[Outcome] = []
        self._in: list[Outcome] = []
        self._steps, self._last = 0, -PAUSE
        self._clock: threading.Timer | None = None

    def add(self, outcome: Outcome) -> None:
        """Take one more, and put in all that wait if it is time."""
        with self._lock:
            self._waiting.append(outcome)
            left = self._last + PAUSE - time.monotonic()
            if left <= 0 or len(self._waiting) >= TOGETHER:
                self._put_in()
            elif self._clock is None:
                self._clock = threading.Timer(left, self._when_time_is_up)
                self._clock.start()
            if self._steps >= COMPACTED_AFTER:
                _compact(self._library)
                self._steps = 0

    def close(self) -> None:
        """Put in all that wait."""
        with self._lock:
            self._put_in()

    def told(self) -> list[Outcome]:
        """What became of those that were put in since this was asked last."""
        with self._lock:
            told, self._in = self._in, []
        return told

    def stop_clock(self) -> None:
        """End the thread, after what it is putting in."""
        with self._lock:
            self._put_clock_away()

    def _when_time_is_up(self) -> None:
        with self._lock, suppress(Exception):  # they wait on, and who puts them in next raises it
            self._put_in()

    def _put_in(self) -> None:
        self._put_clock_away()
        if self._waiting:
            self._in += _put_in(self._waiting, self._library, self._tags)
            self._waiting, self._steps, self._last = [], self._steps + 1, time.monotonic()

    def _put_clock_away(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None


def _put_in(outcomes: Sequence[Outcome], library: MemoryLibrary, tags: Sequence[str] | None) -> list[Outcome]:
    """Put in those that are not there, together; one by one where that is refused."""
    try:
        memories, texts = [], []
        for one in outcomes:
            assert one.memory is not None
            if not (one.known and library.holds(one.memory, one.texts, tags)):
                memories.append(one.memory)
                texts.append(one.texts)
        if memories:
            library.add(memories, texts, tags)
    except LibraryError as error:
        if len(outcomes) == 1:
            return [replace(outcomes[0], memory=None, error=f"{outcomes[0].video}: {error}")]
        return [each for one in outcomes for each in _put_in([one], library, tags)]
    return list(outcomes)
