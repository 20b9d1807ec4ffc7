"""From a question and a remembered video to the frames and tokens that answer it.

Paper, section "Visual Memory Retriever": nearest neighbours by cosine keep the top-k events (k = 3), which return to
temporal order and are sampled into at most 64 frames at 1 fps. Beyond the paper: where there are subtitles, what is
said in the events counts; ``k="auto"`` cuts at the widest gap of the scores; and `plan_frames` with
``mode="allocate"`` blinds nothing: every event keeps a grid of frames and a token at its time, and the retrieved
events share the rest.

    retrieval = VisualMemoryRetriever(embedder).retrieve(memory, "What does he cook first?")
    plan = plan_frames(retrieval, fps=1.0, max_frames=64)
    frames = read_frames(memory.source, plan.seconds)

Shape legend: E events, D embedding dimensions, T frames, G temporal grids (2 frames each).
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marc.io import read_json
from marc.memory.events import evenly_inside
from marc.memory.ranking import best_first, fused_scores, word_scores
from marc.memory.vectors import cosine_scores, neighbour_similarity
from marc.types import FRAMES_PER_GRID, Event, Retrieval
from marc.video.sampling import distinct_times, pictures_in

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder

EMBEDDED = "tiny"
PERCEPTION_ENCODER = "PE-Core-B-16"
AUTO_LIMIT = 8
ALIKE = 0.95
"""Cosine from which on neighbouring events look alike."""


class RememberedEvents(Protocol):
    """What retrieval needs of a memory: `marc.memory.store.VideoMemory` has it."""

    @property
    def events(self) -> tuple[Event, ...]:
        """Events in time order."""
        ...

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """Their unit vectors ``float32 [E, D]``."""
        ...


@dataclass(frozen=True)
class Stretch:
    """What is remembered of a part of a video.

    Attributes:
        events: What lies in it of the video's events, in time order.
        embeddings: Unit vectors of the whole events, ``float32 [E, D]``.
    """

    events: tuple[Event, ...]
    embeddings: NDArray[np.float32]


def within(memory: RememberedEvents, stretch: Event) -> RememberedEvents:
    """What is remembered of a stretch of a video; events that it cuts keep what lies inside.

    Raises:
        ValueError: If no event lies in it.
    """
    if stretch.start <= memory.events[0].start and stretch.end >= memory.events[-1].end:
        return memory
    inside = [
        index
        for index, event in enumerate(memory.events)
        if max(event.start, stretch.start) < min(event.end, stretch.end)
    ]
    if not inside:
        raise ValueError(f"no event was found between {stretch.start:g} s and {stretch.end:g} s")
    events = [memory.events[index] for index in inside]
    cut = (Event(max(each.start, stretch.start), min(each.end, stretch.end)) for each in events)
    return Stretch(tuple(cut), memory.embeddings[inside])


@dataclass(frozen=True)
class FramePlan:
    """Which frames to read, to which event each temporal grid belongs, and how many tokens each event may keep.

    Attributes:
        seconds: ``float64 [T]`` timestamps to read, ascending, T even; frames ``2g`` and ``2g + 1`` form grid ``g``.
        grid_events: ``int64 [G]`` with G = T / 2, non-decreasing: index into ``events`` of each temporal grid.
        events: The stretches of the video that the frames come from, in time order: the retrieved events, or with
            ``mode="allocate"`` all events, similar neighbours joined where they outnumber the grids or tokens.
        shares: Visual tokens of each of ``events``, at least 1 each, the budget in all. None without a budget.
    """

    seconds: NDArray[np.float64]
    grid_events: NDArray[np.int64]
    events: tuple[Event, ...]
    shares: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        assert len(self.seconds) == FRAMES_PER_GRID * len(self.grid_events)
        assert self.shares is None or (len(self.shares) == len(self.events) and min(self.shares) >= 1)


class VisualMemoryRetriever:
    """Finds the events of a remembered video that a question is about.

    Args:
        embedder: Embeds the question; must be the one that embedded the events.
    """

    def __init__(self, embedder: EventEmbedder) -> None:
        self.embedder = embedder

    def retrieve(
        self,
        memory: RememberedEvents,
        question: str,
        k: int | Literal["auto"] = 3,
        texts: Sequence[str] | None = None,
    ) -> Retrieval:
        """Keep the k events nearest to the question, all of them if there are fewer.

        Args:
            memory: Events and their embeddings.
            question: The question; answer options are stripped before embedding.
            k: Number of events, or ``"auto"`` for the cut at the widest gap of the scores (see `gap_k`).
            texts: What is said in each event, empty where nothing is. With them events are ranked by picture and words
                together, see `marc.memory.ranking.fused_scores`; where no word of the question is in them, nothing
                changes.

        Raises:
            ValueError: k is neither positive nor ``"auto"``, the memory comes from a model of another dimension, or
                there is not one text for each event.
        """
        if texts is not None and len(texts) != len(memory.events):
            raise ValueError(f"{len(memory.events)} events need as many texts, not {len(texts)}")
        query = self.embedder.embed_question(question)
        scores = cosine_scores(query.vector, memory.embeddings)
        text_scores = word_scores(query.text, texts or ())
        kept = top_k(scores, gap_k(fused_scores(scores, text_scores)) if k == "auto" else k, text_scores)
        return Retrieval(
            events=memory.events,
            scores=tuple(scores.tolist()),
            kept=tuple(sorted(kept)),
            neighbour_similarity=tuple(neighbour_similarity(memory.embeddings).tolist()),
            query=query.text,
            query_truncated=query.truncated,
            text_scores=tuple(text_scores.tolist()) if text_scores.any() else (),
        )


def strongest(retrieval: Retrieval, limit: int) -> Retrieval:
    """The retrieval with at most so many events kept, the best ones; the earlier one wins a tie."""
    if len(retrieval.kept) <= limit:
        return retrieval
    return replace(retrieval, kept=tuple(sorted(_kept_best_first(retrieval)[:limit])))


def _kept_best_first(retrieval: Retrieval) -> list[int]:
    """Indices of the kept events, best first."""
    kept = set(retrieval.kept)
    return [index for index in best_first(retrieval.scores, retrieval.text_scores) if index in kept]


def default_embedder(model_name: str) -> str:
    """The dual encoder that goes with an answering model: what its configuration names, else PE-Core-B.

    Args:
        model_name: The embedded model, a folder, or a hub name.
    """
    if model_name == EMBEDDED:
        return EMBEDDED
    file = Path(model_name) / "config.json"
    try:
        named = read_json(file).get("embedder") if os.path.isfile(file) else None
    except (OSError, ValueError, AttributeError):
        named = None  # whoever loads the model says what is wrong with it
    return str(named or PERCEPTION_ENCODER)


def knows_generated_videos_only(embedder: str | None) -> bool:
    """Whether a dual encoder, and the model that it goes with, were trained on the micro-world alone."""
    return embedder == EMBEDDED


def top_k(scores_E: ArrayLike, k: int, text_scores_E: ArrayLike = ()) -> list[int]:
    """Indices of the k best events by picture and words, best first; the earlier event wins a tie."""
    if k < 1:
        raise ValueError(f"k must be at least 1 or 'auto', not {k}")
    return best_first(scores_E, text_scores_E)[:k]


def gap_k(scores_E: ArrayLike, limit: int = AUTO_LIMIT) -> int:
    """How many events to keep: the cut at the widest gap between consecutive scores, among the ``limit`` best."""
    descending = np.sort(np.asarray(scores_E, dtype=np.float64))[::-1]
    gaps = descending[:-1] - descending[1:]
    return 1 if len(gaps) == 0 else int(np.argmax(gaps[:limit])) + 1


def plan_frames(
    retrieval: Retrieval,
    *,
    fps: float = 1.0,
    max_frames: int = 64,
    mode: Literal["retrieve", "allocate"] = "retrieve",
    token_budget: int | None = None,
    max_events: int | None = None,
    starts: Sequence[float] = (),
) -> FramePlan:
    """Choose the timestamps to read and, with a budget, each event's share of the visual tokens.

    Every event gets whole temporal grids (2 frames) and at least one, so that no grid straddles two events. Where
    ``fps`` asks for more than ``max_frames``, grids are shared out in proportion to length. A kept event that takes in
    bystanders has its frames in itself, and one grid in what it takes in on either side.

    Args:
        retrieval: Events, scores and the kept ones.
        fps: Frames per second wanted inside the events.
        max_frames: Upper limit of frames in all.
        mode: ``"retrieve"`` reads the kept events only (the paper). ``"allocate"`` reads all: events that were not
            kept get one grid, from their middle, and one token each, and the kept ones share what is left of both.
        token_budget: Visual tokens to share out over the events; None where the layout does not share.
        max_events: Most events with ``"allocate"``, beside the limits that the others set.
        starts: When pictures begin, where the file says so and they stay (`marc.types.VideoInfo.starts`): an event has
            no more frames than it has pictures, others have those for which they have pictures.

    Raises:
        ValueError: An argument is out of range, or the kept events do not fit into the frame limit or the budget.
    """
    grid_limit = max_frames // FRAMES_PER_GRID
    _check_plan(fps, grid_limit, mode, token_budget, len(retrieval.kept))
    if mode == "retrieve":
        events, kept = [retrieval.events[index] for index in retrieval.kept], list(range(len(retrieval.kept)))
    else:
        limit = min(each for each in (grid_limit, token_budget, max_events) if each is not None)
        events, kept = join_bystanders(retrieval.events, retrieval.neighbour_similarity, retrieval.kept, limit)

    stretches = [
        _KeptStretch(event, retrieval.events[retrieval.kept[kept.index(index)]], starts) if index in kept else None
        for index, event in enumerate(events)
    ]
    grids = _grids_of(stretches, fps, grid_limit)
    shares = None
    if token_budget is not None:
        best = [kept[retrieval.kept.index(index)] for index in _kept_best_first(retrieval)]
        shares = event_shares(token_budget, len(events), best)
    return FramePlan(
        seconds=np.concatenate(
            [
                stretch.times(count, fps) if stretch else around_the_middle(event, fps)
                for event, stretch, count in zip(events, stretches, grids.tolist(), strict=True)
            ]
        ),
        grid_events=np.repeat(np.arange(len(events)), grids),
        events=tuple(events),
        shares=shares,
    )


@dataclass(frozen=True)
class _KeptStretch:
    """A retrieved event with the bystanders that it takes in.

    Attributes:
        whole: All of it.
        event: The retrieved event.
        starts: When pictures begin, where they stay.
    """

    whole: Event
    event: Event
    starts: Sequence[float]

    def sides(self, grids: int) -> list[Event]:
        """What it takes in that has a grid, if there are so many: the longer side first."""
        before = Event(self.whole.start, self.event.start) if self.whole.start < self.event.start else None
        after = Event(self.event.end, self.whole.end) if self.event.end < self.whole.end else None
        there = sorted((side for side in (before, after) if side), key=lambda side: -side.duration)
        return there[: grids - 1]

    def times(self, grids: int, fps: float) -> NDArray[np.float64]:
        """The frames of so many grids, in seconds."""
        sides = self.sides(grids)
        count = FRAMES_PER_GRID * (grids - len(sides))
        if self.starts:
            inside = distinct_times(np.array(self.starts), self.event.start, self.event.end, count)
        else:
            inside = evenly_inside(self.event, count)
        return np.sort(np.concatenate([inside, *(around_the_middle(side, fps) for side in sides)]))


def _grids_of(stretches: Sequence[_KeptStretch | None], fps: float, limit: int) -> NDArray[np.int64]:
    """Temporal grids of each stretch of a video, at most so many in all: None is a bystander, which has one."""
    kept = np.array([index for index, stretch in enumerate(stretches) if stretch], dtype=np.int64)
    own = [stretch for stretch in stretches if stretch]
    wanted = np.ones(len(stretches), dtype=np.int64)
    inside = np.array([max(1, round(each.event.duration * fps / FRAMES_PER_GRID)) for each in own], dtype=np.int64)
    given = _by_pictures(inside, own, limit) if own and own[0].starts else inside
    wanted[kept] = given + [len(each.sides(limit)) for each in own]
    return share_out(min(limit, int(wanted.sum())), wanted)


def _by_pictures(wanted_K: NDArray[np.int64], kept: Sequence[_KeptStretch], limit: int) -> NDArray[np.int64]:
    """Grids of events whose pictures stay: no more than they have pictures, as long as others have some left."""
    pictures = [pictures_in(each.starts, each.event.start, each.event.end) for each in kept]
    most_K = np.array([max(1, -(-count // FRAMES_PER_GRID)) for count in pictures])
    given_K = np.minimum(wanted_K, most_K)
    for _ in range(min(limit, int(wanted_K.sum())) - int(given_K.sum())):
        if (most_K <= given_K).all():
            break
        given_K[np.argmax(most_K - given_K)] += 1
    return given_K


def around_the_middle(event: Event, fps: float) -> NDArray[np.float64]:
    """The two frames of one grid in an event, in seconds: as far apart as elsewhere, so that motion looks alike."""
    gap = min(1 / fps, event.duration / FRAMES_PER_GRID)
    return np.array([event.middle - gap / 2, event.middle + gap / 2])


def share_out(total: int, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Split ``total`` in proportion to ``wanted``, at least 1 and at most ``wanted`` each, by largest remainders.

    Args:
        total: At least one per entry and at most the sum of ``wanted``.
        wanted: Positive integers.
    """
    assert len(wanted) <= total <= wanted.sum()
    exact = wanted * total / wanted.sum()
    parts = np.maximum(1, np.floor(exact).astype(np.int64))
    while parts.sum() < total:
        parts[np.argmax(exact - parts)] += 1
    while parts.sum() > total:
        parts[np.argmax(np.where(parts > 1, parts - exact, -np.inf))] -= 1
    return parts


def join_bystanders(
    events: Sequence[Event], similarity: Sequence[float], kept: Sequence[int], limit: int
) -> tuple[list[Event], list[int]]:
    """Join neighbouring events that were not kept, the most alike first, until ``limit`` events are left.

    What stays apart is what the strongest changes separate; the parts of one long scene go together first. A kept
    event takes in the bystanders beside it only where those of each such stretch are one already, and only on the side
    that is more alike. Two kept events are never joined.

    Args:
        events: Events in time order.
        similarity: Of each event with the next one, as `marc.memory.vectors.neighbour_similarity` gives it.
        kept: Indices of the retrieved events, ascending.
        limit: Most events to leave; at least 1, and at least as many as were kept.

    Returns:
        The events in time order and the indices among them of the kept ones, or of what those are part of.
    """
    count = len(events)
    assert max(1, len(kept)) <= limit and len(similarity) == count - 1
    order = _joints(similarity, kept)
    gone = set(order[: max(0, count - limit)])
    firsts = [0, *(joint + 1 for joint in range(count - 1) if joint not in gone)]
    joined = [Event(events[first].start, events[end - 1].end) for first, end in pairwise([*firsts, count])]
    return joined, [bisect_right(firsts, index) - 1 for index in kept]


def unlike_events(similarity: Sequence[float], kept: Sequence[int] = (), alike: float = ALIKE) -> int:
    """How many events are left where neighbours that look alike are joined, but for those that were kept.

    Args:
        similarity: Of each event with the next one.
        kept: Indices of the retrieved events.
        alike: The cosine from which on they do.
    """
    held = set(kept)
    return 1 + sum(each < alike or joint in held or joint + 1 in held for joint, each in enumerate(similarity))


def events_at(memory: RememberedEvents, seconds_T: NDArray[np.float64]) -> tuple[int, ...]:
    """In which event of a video each temporal grid lies, where neighbours that look alike are one.

    Args:
        memory: Events and their embeddings.
        seconds_T: Times of the frames, `FRAMES_PER_GRID` for each grid; an event has a grid whose middle it holds.
    """
    similarity = neighbour_similarity(memory.embeddings).tolist()
    events, _ = join_bystanders(memory.events, similarity, (), unlike_events(similarity))
    middles_G = seconds_T.reshape(-1, FRAMES_PER_GRID).mean(axis=1)
    return tuple(np.searchsorted([event.start for event in events[1:]], middles_G, side="right").tolist())


def _joints(similarity: Sequence[float], kept: Sequence[int]) -> list[int]:
    """Where neighbours may be joined, in that order; joint i lies between the events i and i + 1."""
    held = set(kept)
    joints = sorted(range(len(similarity)), key=lambda joint: (-similarity[joint], joint))
    among_bystanders = [joint for joint in joints if joint not in held and joint + 1 not in held]
    beside_kept: dict[int, int] = {}
    for joint in joints:
        if (joint in held) != (joint + 1 in held):
            stretch = bisect_right(kept, joint)
            beside_kept.setdefault(stretch, joint)
    return among_bystanders + list(beside_kept.values())


def event_shares(budget: int, events: int, best: Sequence[int]) -> tuple[int, ...]:
    """Visual tokens of each event: one, and what is left evenly for the retrieved ones.

    Args:
        budget: Of all, at least one for each.
        events: How many there are.
        best: The retrieved ones, best first: what cannot be divided is for the first of them.
    """
    shares = [1] * events
    each, more = divmod(budget - events, len(best))
    for rank, event in enumerate(best):
        shares[event] += each + (rank < more)
    return tuple(shares)


def _check_plan(fps: float, grid_limit: int, mode: str, token_budget: int | None, kept: int) -> None:
    if mode not in ("retrieve", "allocate"):
        raise ValueError(f"mode must be 'retrieve' or 'allocate', not {mode!r}")
    if fps <= 0:
        raise ValueError(f"fps must be positive, not {fps}")
    if kept > grid_limit:
        raise ValueError(
            f"{kept} retrieved events need at least {kept * FRAMES_PER_GRID} frames: raise max_frames or lower k"
        )
    if token_budget is not None and kept > token_budget:
        raise ValueError(f"{kept} retrieved events need at least {kept} visual tokens: raise the budget or lower k")
