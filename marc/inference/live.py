"""What a model sees of a watched source for a question: the events that fit it, and always what is there now.

The present, the event that is not over, is always shown: what a question about it needs is there without being found.
Of a long one the last two pairs of frames are shown, unless it is among the events that fit best. Beside it come the
events and chapters nearest to the question; none where the question says that it is about now (`is_about_now`), as
what lies behind would only mislead. In the event layout, what room is left goes to the rest of the time, neighbours
joined until they fit.

Shapes: T frames, G temporal grids, E events, D embedding dimensions, H height, W width.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from marc.inference.selectors import FrameRequest, FrameSelector, RetrievingSelector, Selection
from marc.io import sha256_of
from marc.memory.live.snapshot import KeptFrame, LiveEvent, LiveSnapshot
from marc.memory.select import (
    Stretch,
    VisualMemoryRetriever,
    event_shares,
    gap_k,
    join_bystanders,
    share_out,
    top_k,
    unlike_events,
)
from marc.memory.vectors import average_direction
from marc.types import FRAMES_PER_GRID, Clip, Event, Frames, Retrieval, VideoInfo

NOW_FRAMES = 4
"""Frames of what is there now."""
CHANGED = 20.0
"""Grey levels by which two small pictures differ, on average, where a shot may have begun."""
INSTANT = 1e-3
"""Seconds for which the last frame lasts, as far as is known."""
SAME_SHAPE = 0.02
"""By how much aspect ratios may differ to be the same."""
_SMALL = (48, 27)
_NOW = re.compile(
    r"\b(now|currently|at the moment|at present|(last|latest|current|present) (scene|shot|picture|frame|image|moment)|"
    r"(scene|shot) (is|comes) last)\b",
    re.IGNORECASE,
)
_Pair = tuple[KeptFrame, KeptFrame]


@dataclass(frozen=True)
class LiveView:
    """What is shown of a source for a question.

    Attributes:
        selection: The frames, and why.
        shown: The kept frames, T of them.
        remarks: What the user should know.
    """

    selection: Selection
    shown: tuple[KeptFrame, ...]
    remarks: tuple[str, ...]

    @property
    def key(self) -> str:
        """Tells what is shown from everything else."""
        return sha256_of(*(frame.jpeg for frame in self.shown))

    def read(self, size: tuple[int, int], info: VideoInfo) -> Frames:
        """The frames ``[T, H, W, 3]`` at a width and height; those of another shape than the latest get edges."""
        shape = info.width, info.height
        rgb_THWC = np.stack([_fitted(frame.jpeg, size, shape) for frame in self.shown])
        return Frames(rgb_THWC, self.selection.seconds, info.source)


@dataclass(frozen=True)
class _Candidate:
    """An event of a source that may be shown.

    Attributes:
        span: When it was.
        vector: Its unit vector; zeros where nothing of it was embedded.
        event: Has its frames, if it is over.
        recent: Its frames in full size, where they are still there.
        within: The stretch that is asked about: start and end.
    """

    span: Event
    vector: NDArray[np.float32]
    event: LiveEvent | None
    recent: tuple[KeptFrame, ...]
    within: tuple[float, float] = (0.0, np.inf)

    def pairs(self, most: int | None = None) -> list[_Pair]:
        """Its frames inside the stretch in pairs of neighbours, or the last of them; the nearest if none is inside."""
        frames = self.recent or (self.event.frames() if self.event else ())
        if len(frames) > 1:
            frames = frames[len(frames) % FRAMES_PER_GRID :]
        whole = list(zip(frames[::2], frames[1::2] or frames, strict=True))
        pairs = [pair for pair in map(self._inside, whole) if pair is not None]
        if not pairs:
            start, end = self.within
            nearest = min(frames, key=lambda frame: max(start - frame.second, frame.second - end))
            pairs = [(nearest, nearest)]
        return pairs if most is None else pairs[-(most // FRAMES_PER_GRID) :]

    def _inside(self, pair: _Pair) -> _Pair | None:
        """A pair of which both are inside the stretch: one that is stands for the other, too."""
        start, end = self.within
        inside = [frame for frame in pair if start <= frame.second < end]
        return (inside[0], inside[-1]) if inside else None


def describe(snapshot: LiveSnapshot) -> VideoInfo:
    """A source as if it were a file that ends with the last frame.

    Raises:
        ValueError: If nothing of it was seen yet.
    """
    if snapshot.is_empty:
        raise ValueError(f"{snapshot.name}: nothing was seen yet; ask again in some seconds")
    width, height = snapshot.recent[-1].size if snapshot.recent else snapshot.events[-1].size
    seconds = [frame.second for frame in snapshot.recent[-2:]]
    step = seconds[1] - seconds[0] if len(seconds) == 2 and seconds[1] > seconds[0] else 1.0
    rate, duration = snapshot.rate or 1 / step, snapshot.ended or snapshot.until + step
    return VideoInfo(snapshot.name, width, height, duration, rate, max(1, round(duration * rate)), codec="")


def clip_of(snapshot: LiveSnapshot) -> Clip:
    """The stretch that is asked about."""
    return Clip(snapshot.name, snapshot.start, snapshot.end)


def look_at(snapshot: LiveSnapshot, request: FrameRequest, selector: FrameSelector) -> LiveView:
    """Chooses what is shown of a source for a question.

    Args:
        snapshot: What is known of it.
        request: What frames are wanted for.
        selector: The assistant's, which embeds the question.

    Raises:
        ValueError: If it does not retrieve, or by another dual encoder than the source is watched with.
    """
    if not isinstance(selector, RetrievingSelector):
        raise ValueError(f"{snapshot.name}: a watched source is only asked with the memory; leave --no-memory out")
    if snapshot.embedder and selector.embedder.identity["fingerprint"] != snapshot.embedder:
        raise ValueError(
            f"{snapshot.name}: it is watched with another dual encoder than this model's; name that with --embedder"
        )
    candidates, has_now = _candidates(snapshot)
    with request.clock.stage("retrieve"):
        spans, vectors_ED = tuple(each.span for each in candidates), np.stack([each.vector for each in candidates])
        found = VisualMemoryRetriever(selector.embedder).retrieve(Stretch(spans, vectors_ED), request.question, 1)
    kept = _kept(found, selector.retrieval.k, request.most_events, has_now)
    if has_now and is_about_now(request.question):
        kept = _Kept((len(candidates) - 1,), whole=False, left_out=0)
    selection, shown = _selected(request, replace(found, kept=kept.events), candidates, kept)
    return LiveView(replace(selection, left_out=kept.left_out), shown, tuple(_remarks(snapshot, shown)))


def last_frames(snapshot: LiveSnapshot) -> Frames:
    """The last frames of a source in full size, `NOW_FRAMES` of one size at most.

    Raises:
        ValueError: If nothing was seen yet.
    """
    if not snapshot.recent:
        raise ValueError(f"{snapshot.name}: nothing was seen yet; ask again in some seconds")
    kept = [frame for frame in snapshot.recent[-NOW_FRAMES:] if frame.size == snapshot.recent[-1].size]
    rgb_THWC = np.stack([np.asarray(Image.open(io.BytesIO(frame.jpeg))) for frame in kept])
    return Frames(rgb_THWC, np.array([frame.second for frame in kept]), snapshot.name)


def is_about_now(question: str) -> bool:
    """Whether a question says, in English, that it is about what is there now."""
    return _NOW.search(question) is not None


def _candidates(snapshot: LiveSnapshot) -> tuple[list[_Candidate], bool]:
    """What may be shown of the stretch that is asked about, in time order; whether the last is what is there now."""
    candidates = [_Candidate(each.span, each.vector, each, _still_whole(snapshot, each)) for each in snapshot.events]
    opened = [frame for frame in snapshot.recent if frame.second >= snapshot.open_start]
    now = opened[_last_change(opened) :]
    dimension = (snapshot.events[0].vector if snapshot.events else _any_vector(snapshot.recent)).shape
    for frames in (opened[: len(opened) - len(now)], now):
        if frames:
            end = snapshot.until + INSTANT if frames is now else now[0].second
            vector = _direction(frames, opened, dimension)
            candidates.append(_Candidate(Event(frames[0].second, end), vector, None, tuple(frames)))
    start, end = snapshot.start, np.inf if snapshot.end is None else snapshot.end
    overlapping = (each for each in candidates if max(each.span.start, start) < min(each.span.end, end))
    inside = [replace(each, within=(start, end)) for each in overlapping]
    if not inside:
        raise ValueError(f"{snapshot.name}: nothing was seen between {start:g} s and {end:g} s")
    return inside, inside[-1].span == candidates[-1].span


def _still_whole(snapshot: LiveSnapshot, event: LiveEvent) -> tuple[KeptFrame, ...]:
    """The frames of an event in full size, if all of them are still among the last; else none."""
    if not snapshot.recent or event.span.start < snapshot.recent[0].second:
        return ()
    return tuple(frame for frame in snapshot.recent if event.span.start <= frame.second < event.span.end)


def _any_vector(frames: Sequence[KeptFrame]) -> NDArray[np.float32]:
    return next((frame.vector for frame in frames if frame.vector is not None), np.zeros(1, np.float32))


def _direction(
    frames: Sequence[KeptFrame], opened: Sequence[KeptFrame], dimension: tuple[int, ...]
) -> NDArray[np.float32]:
    """The mean direction of frames; of the last embedded ones of their event where none of them is."""
    for some in (frames, opened):
        vectors = [frame.vector for frame in some if frame.vector is not None]
        if vectors:
            return average_direction(np.stack(vectors))
    return np.zeros(dimension, np.float32)


def _last_change(frames: Sequence[KeptFrame]) -> int:
    """The index of the frame with which the picture may have changed as a whole: a cut that is not known yet."""
    first = max(0, len(frames) - NOW_FRAMES)
    small = [np.asarray(_opened(frame.jpeg, _SMALL).resize(_SMALL), np.int16) for frame in frames[first:]]
    changes = [index for index in range(1, len(small)) if np.abs(small[index] - small[index - 1]).mean() > CHANGED]
    return first + changes[-1] if changes else 0


@dataclass(frozen=True)
class _Kept:
    """Which candidates are shown.

    Attributes:
        events: Their indices, ascending.
        whole: Whether the present is shown from its start.
        left_out: Events that were wanted, for which there was no room.
    """

    events: tuple[int, ...]
    whole: bool
    left_out: int


def _kept(found: Retrieval, k: int | str, room: int, has_now: bool) -> _Kept:
    """The best events, and what is there now."""
    past = found.scores[:-1] if has_now else found.scores
    if room == 1 or not past:
        return _Kept((top_k(found.scores, 1)[0],), whole=True, left_out=0)
    wanted = gap_k(past) if isinstance(k, str) else min(k, len(past))
    kept = top_k(past, min(wanted, room - has_now))
    now = [len(past)] if has_now else []
    whole = has_now and len(past) in top_k(found.scores, wanted)
    return _Kept(tuple(sorted([*kept, *now])), whole, wanted - len(kept))


def _selected(
    request: FrameRequest, retrieval: Retrieval, candidates: Sequence[_Candidate], chosen: _Kept
) -> tuple[Selection, tuple[KeptFrame, ...]]:
    """The frames of the kept events, and where room is left one pair of what lies between."""
    is_shared, limit = request.shared_budget is not None, request.frames.max_frames // FRAMES_PER_GRID
    spans, kept = [candidates[index].span for index in retrieval.kept], list(range(len(retrieval.kept)))
    if is_shared and request.most_events > len(retrieval.kept) > 1:
        most = request.most_events
        if request.compression.tokens_per_event is not None:
            most = min(most, unlike_events(retrieval.neighbour_similarity, retrieval.kept))
        spans, kept = join_bystanders(retrieval.events, retrieval.neighbour_similarity, retrieval.kept, most)
    own = dict(zip(kept, retrieval.kept, strict=True))
    pairs = [
        _own_pairs(candidates, own[index], chosen) if index in own else _middle_pair(candidates, span)
        for index, span in enumerate(spans)
    ]
    grids = share_out(min(limit, sum(map(len, pairs))), np.array([len(each) for each in pairs], dtype=np.int64))
    taken = [_evenly(each, count) for each, count in zip(pairs, grids.tolist(), strict=True)]
    shown = tuple(frame for some in taken for pair in some for frame in pair)
    events = tuple(index for index, some in enumerate(taken) for _ in some)
    best = sorted(kept, key=lambda index: -retrieval.scores[own[index]])
    shares = event_shares(request.budget_of(len(spans), len(kept)), len(spans), best) if is_shared else None
    seconds = np.array([frame.second for frame in shown])
    return Selection(seconds, events, shares, retrieval), shown


def _own_pairs(candidates: Sequence[_Candidate], index: int, chosen: _Kept) -> list[_Pair]:
    is_short_now = index == len(candidates) - 1 and candidates[index].event is None and not chosen.whole
    return candidates[index].pairs(NOW_FRAMES if is_short_now else None)


def _middle_pair(candidates: Sequence[_Candidate], span: Event) -> list[_Pair]:
    """The pair in the middle of a stretch of time."""
    nearest = min(candidates, key=lambda each: abs(each.span.middle - span.middle))
    pairs = nearest.pairs()
    return [pairs[len(pairs) // 2]]


def _evenly(pairs: Sequence[_Pair], count: int) -> list[_Pair]:
    return [pairs[int((number + 0.5) * len(pairs) / count)] for number in range(count)]


def _remarks(snapshot: LiveSnapshot, shown: Sequence[KeptFrame]) -> Iterator[str]:
    yield snapshot.seen_until()
    end = np.inf if snapshot.end is None else snapshot.end
    if outside := [frame.second for frame in shown if not snapshot.start <= frame.second < end]:
        yield f"{snapshot.name}: of a part of that stretch no frame is kept; one at {outside[0]:.1f} s is shown"
    if snapshot.gaps:
        last = snapshot.gaps[-1]
        yield f"{snapshot.name}: {last.why} at {last.start:.1f} s, until {last.end:.1f} s"
    if forgotten := snapshot.forgotten():
        yield forgotten
    if snapshot.problem:
        yield f"{snapshot.name}: nothing is written at the moment: {snapshot.problem}"


def _opened(jpeg: bytes, size: tuple[int, int]) -> Image.Image:
    """A picture decoded no larger than a size needs."""
    image = Image.open(io.BytesIO(jpeg))
    image.draft("RGB", size)
    return image


def _fitted(jpeg: bytes, size: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture ``uint8 [H, W, 3]`` at a width and height that stand for a shape; black where it has another one."""
    image = _opened(jpeg, size)
    wide = image.width * shape[1] / (image.height * shape[0])
    inner = max(1, round(size[0] * min(wide, 1))), max(1, round(size[1] * min(1 / wide, 1)))
    if abs(wide - 1) < SAME_SHAPE:
        return np.asarray(image.resize(size, Image.Resampling.BICUBIC))
    fitted = Image.new("RGB", size)
    resized = image.resize(inner, Image.Resampling.BICUBIC)
    fitted.paste(resized, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return np.asarray(fitted)
