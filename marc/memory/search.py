"""A question to the tables of a library: what fits it best by picture and by words, in one order for all pages.

Shape legend: D embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marc.memory.addresses import is_address
from marc.memory.filters import EventFilter, quoted
from marc.memory.ranking import RANK_CONSTANT, best_first, content_words, fused_scores
from marc.memory.store import content_key
from marc.memory.tables import Row, event_of, frame_cosine, has_texts, matching_events, nearest_events
from marc.types import Event

if TYPE_CHECKING:
    from lancedb.table import Table

DEPTH = 200
"""Best events by picture, and as many by words, that are ranked together."""
FIRST = 100
"""Of these so many are ordered by their keyframes, where that is wanted."""


@dataclass(frozen=True)
class RecalledEvent:
    """One event of one remembered video.

    Attributes:
        source: Path or address of the video when it was remembered; where it had several, one that is still there.
        content: SHA-256 of the video file.
        position: Index of the event within its video.
        event: Start and end in seconds.
        score: Cosine similarity to the question, in ``[-1, 1]``.
        text: What is said in it, by its subtitles.
        relevance: What events are ordered by: the cosine, or where words of the question were said in any, what
            `marc.memory.ranking.fused_scores` makes of both.
        frame_score: The highest cosine with one of its keyframes, or with all of them, as far as they are known.
        text_score: How well its words match (BM25); 0 where none does.
    """

    source: str
    content: str
    position: int
    event: Event
    score: float
    text: str = ""
    relevance: float = 0.0
    frame_score: float = 0.0
    text_score: float = 0.0

    @property
    def problem(self) -> str:
        """Why its video cannot be shown; empty if it can. Objects of a store are not fetched."""
        if is_address(self.source):
            return "it lies in an object store; ask about it by its address"
        if not Path(self.source).is_file():
            return "the file is gone"
        return "" if content_key(self.source) == self.content else "the file has changed since it was remembered"


@dataclass(frozen=True)
class Search:
    """A question to the tables of a library.

    Attributes:
        tables: Of one embedding model.
        query: The question's unit vector ``[D]``.
        question: Its words.
        among: Which events are looked at.
        by_frames: Order the first hundred by the keyframe that fits best, instead of by their keyframes' mean.
    """

    tables: Sequence[Table]
    query: NDArray[np.float32]
    question: str
    among: EventFilter
    by_frames: bool

    def ranked(self, count: int) -> list[RecalledEvent]:
        """The events that fit best, at least so many if there are, in an order that does not depend on it.

        The best by picture and by words are ranked together; behind them come the others by picture, in portions each
        of which is twice as large as all before.
        """
        heard = self._heard()
        depth, is_all = DEPTH, False
        ranked: list[RecalledEvent] = []
        while len(ranked) < count and not is_all:
            nearest = [nearest_events(table, self.query, depth, where) for table, where in self._places]
            seen = sorted((row for rows in nearest for row in rows), key=lambda row: -row["cosine"])[:depth]
            ranked += self._behind(ranked, seen, is_fused=bool(heard)) if ranked else self._first(heard, seen)
            is_all = all(len(rows) < depth for rows in nearest)
            depth *= 2
        return ranked

    @cached_property
    def _places(self) -> list[tuple[Table, str]]:
        """The tables, each with its condition."""
        return [(table, self.among.condition(table.schema.names)) for table in self.tables]

    def _heard(self) -> list[Row]:
        """The rows that match by their words."""
        words = content_words(self.question) if any(map(has_texts, self.tables)) else []
        found = (matching_events(table, self.query, words, DEPTH, where) for table, where in self._places)
        return [row for rows in found for row in rows]

    def _first(self, heard: Sequence[Row], seen: Sequence[Row]) -> list[RecalledEvent]:
        """The best by picture and by words; the first of these by their keyframes where that is wanted."""
        ranked = best_of(heard, seen, self.query)
        first, others = (ranked[:FIRST], ranked[FIRST:]) if self.by_frames else ([], ranked)
        order = best_first([one.frame_score for one in first], [one.text_score for one in first])
        places = [one.relevance for one in first]
        return [*(replace(first[index], relevance=places[place]) for place, index in enumerate(order)), *others]

    def _behind(self, found: Sequence[RecalledEvent], seen: Sequence[Row], *, is_fused: bool) -> list[RecalledEvent]:
        """The events that were not found yet, by picture; where ranks were fused, theirs count on."""
        known = {(one.content, one.event.start, one.event.end) for one in found}
        others = best_of([], [row for row in seen if event_of(row) not in known], self.query)
        if not is_fused:
            return others
        first = RANK_CONSTANT + len(found) + 1
        return [replace(one, relevance=1 / (first + index)) for index, one in enumerate(others)]


def best_of(heard: Sequence[Row], seen: Sequence[Row], query_D: NDArray[np.float32]) -> list[RecalledEvent]:
    """All events that were found by their words or by their pictures, best first; those of several tables, once."""
    events: dict[tuple[str, float, float], Row] = {}
    for row in sorted(heard, key=lambda row: -row["_score"]):
        events.setdefault(event_of(row), row)
    for row in sorted(seen, key=lambda row: -row["cosine"]):
        events.setdefault(event_of(row), row)
    rows = list(events.values())
    cosines = [row["cosine"] for row in rows]
    text_scores = [row.get("_score", 0.0) for row in rows]
    relevance = fused_scores(cosines, text_scores)
    return [
        RecalledEvent(
            source=rows[index]["source"],
            content=rows[index]["video"],
            position=rows[index]["position"],
            event=Event(rows[index]["start"], rows[index]["end"]),
            score=cosines[index],
            text=rows[index].get("text") or "",
            relevance=float(relevance[index]),
            frame_score=frame_cosine(rows[index], query_D),
            text_score=text_scores[index],
        )
        for index in best_first(cosines, text_scores)
    ]


def with_files_that_are_there(tables: Sequence[Table], found: Sequence[RecalledEvent]) -> list[RecalledEvent]:
    """Events with the paths of other files of the same content, where their own are gone and others are there."""
    gone = {one.content for one in found if not _is_there(one.source)}
    if not gone:
        return list(found)
    there: dict[str, str] = {}
    for table in tables:
        condition = f"video IN ({', '.join(map(quoted, sorted(gone)))})"
        rows = table.search().where(condition).select(["video", "source"]).to_arrow()
        for row in rows.group_by(["video", "source"]).aggregate([]).sort_by("source").to_pylist():
            if row["video"] not in there and _is_there(row["source"]):
                there[row["video"]] = row["source"]
    return [
        replace(one, source=there[one.content]) if one.content in there and not _is_there(one.source) else one
        for one in found
    ]


def _is_there(source: str) -> bool:
    """Whether a file exists; of objects that is taken for granted, as asking the store takes too long."""
    return is_address(source) or Path(source).exists()
