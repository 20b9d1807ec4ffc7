"""Putting what many videos are remembered by into the library, as they come.

A library of many small changes is slow: what is written by itself is a fragment of its own, and every change and every
look goes through all of them. So whoever comes while another is put in waits and goes in with the next, and now and
then the library is compacted.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from marc.memory.library import LibraryError, MemoryLibrary
from marc.memory.workers import Outcome

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

    Whoever is killed loses nothing: memories that waited are found on disk by the next run, which enters them.

    Args:
        outcomes: Of videos; those that failed are handed on.
        library: Where to.
        tags: Of all these videos; None leaves each the tags that it has.

    Yields:
        The outcomes; those that the library refuses have failed, with its words.
    """
    waiting: list[Outcome] = []
    steps, last = 0, -PAUSE
    for outcome in outcomes:
        if outcome.memory is None:
            yield outcome
            continue
        waiting.append(outcome)
        if len(waiting) < TOGETHER and time.monotonic() - last < PAUSE:
            continue
        yield from _put_in(waiting, library, tags)
        waiting, steps, last = [], steps + 1, time.monotonic()
        if steps % COMPACTED_AFTER == 0:
            library.optimize()
    yield from _put_in(waiting, library, tags)
    library.optimize()


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
