"""From the events that a library recalls for a question to what is shown of their videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from marc.memory.select import gap_k
from marc.types import Clip, Retrieval

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder
    from marc.memory.library import MemoryLibrary, RecalledEvent
    from marc.memory.options import RetrievalOptions

SPARE = 4
"""So many times more events are recalled than are shown, as some may be of files that are gone."""
AUTO = 8
"""Most events where their scores decide how many."""


def recalled_clips(
    library: MemoryLibrary, embedder: EventEmbedder, question: str, options: RetrievalOptions, most: int | None
) -> tuple[list[Clip], tuple[str, ...]]:
    """The events of all remembered videos that are nearest to a question, as stretches of their videos.

    Args:
        library: Where they are.
        embedder: Embeds the question.
        question: What is asked.
        options: How many events are wanted.
        most: How many there is room for; None: any number.

    Returns:
        A clip of each video, the one with the best event first, and what the user should know.

    Raises:
        ValueError: If nothing was remembered, or no file of it is there any more.
    """
    wanted = AUTO if options.k == "auto" else options.k
    wanted = wanted if most is None else min(wanted, most)
    shown: list[RecalledEvent] = []
    left_out: dict[str, str] = {}
    for one in library.recall(embedder, question, SPARE * wanted):
        if problem := left_out.get(one.source) or one.problem:
            left_out[one.source] = problem
        else:
            shown.append(one)
        if len(shown) == wanted:
            break
    remarks = tuple(f"{source} is left out: {problem}" for source, problem in left_out.items())
    if not shown:
        raise ValueError(f"{library.address}: no video that fits the question can be read; {'; '.join(remarks)}")
    if options.k == "auto":
        shown = shown[: gap_k([one.relevance for one in shown])]
    return clips_of(shown), remarks


def clips_of(found: Sequence[RecalledEvent]) -> list[Clip]:
    """The events of each video in time order; their shares of the budget are as their numbers.

    Args:
        found: Best first.
    """
    videos: dict[str, list[RecalledEvent]] = {}
    for one in found:
        videos.setdefault(one.source, []).append(one)
    clips, begin = [], 0
    for source, events in videos.items():
        retrieval = _retrieval(sorted(events, key=lambda one: one.event))
        clips.append(Clip(source, found=retrieval, share=len(events) / len(found), share_begin=begin / len(found)))
        begin += len(events)
    return clips


def _retrieval(found: Sequence[RecalledEvent]) -> Retrieval:
    """What was found of one video, in time order, as if it were all of it."""
    return Retrieval(
        events=tuple(one.event for one in found),
        scores=tuple(one.score for one in found),
        kept=tuple(range(len(found))),
        neighbour_similarity=(0.0,) * (len(found) - 1),
    )
