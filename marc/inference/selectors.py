"""Which frames of a video a model is to see for a question.

- `UniformSelector` samples the whole video evenly, as Qwen2.5-VL and Video-R1 do.
- `RetrievingSelector` asks the Visual Memory Retriever: the events nearest to the question, and in layouts that share
  a budget out over events one temporal grid of every other event; a question about all of the video is answered from
  evenly spread frames.
- `RandomSelector` reads one temporal grid at a random place, a baseline.

Another way to choose is a class with one method.

Shapes: T frames, G temporal grids.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from marc.compression import CompressionConfig
from marc.compression.plan import most_grids
from marc.inference.stages import StageClock
from marc.memory.options import FirstAnswerOptions, MemoryOptions, RetrievalOptions
from marc.memory.question import is_about_all
from marc.memory.select import (
    FramePlan,
    RememberedEvents,
    VisualMemoryRetriever,
    events_at,
    plan_frames,
    strongest,
    unlike_events,
    within,
)
from marc.types import FRAMES_PER_GRID, VISION_MARKS, Clip, Event, MemoryKind, QuestionScope, Retrieval, VideoInfo
from marc.video import sample_times
from marc.video.options import FrameOptions
from marc.video.subtitles import Subtitles, event_texts

if TYPE_CHECKING:
    from marc.memory.coarse import CoarseMemory
    from marc.memory.embedder import EventEmbedder
    from marc.memory.store import VideoMemory

FOUND_PART = 0.5
"""Of the single tokens: enough for a question about a moment, once the other events were left out."""


@dataclass(frozen=True)
class FrameRequest:
    """What frames are wanted for.

    Attributes:
        info: The video.
        question: What is asked about it.
        frames: How many frames may be read, and how densely.
        compression: The budget at which they will be seen.
        cells: Visual tokens of one temporal grid.
        overhead: Tokens that an event costs in the prompt beside its visual ones.
        clock: Is told what remembering and retrieving took.
        clip: Which part of the video is asked about; None: all of it.
        subtitles: Reads its subtitles.
    """

    info: VideoInfo
    question: str
    frames: FrameOptions
    compression: CompressionConfig
    cells: int
    overhead: int
    clock: StageClock
    clip: Clip | None = None
    subtitles: Callable[[], Subtitles] = Subtitles

    @property
    def stretch(self) -> Event:
        """The stretch that is asked about.

        Raises:
            ValueError: If it begins behind the end of the video.
        """
        return (self.clip or Clip(self.info.source)).within(self.info.duration)

    @property
    def asks_for_all(self) -> bool:
        """Whether that is the whole video."""
        return self.clip is None or (self.clip.start == 0 and self.clip.end is None)

    @property
    def shared_budget(self) -> int | None:
        """Visual tokens that are shared out over the events; None where the layout does not share."""
        if not (self.compression.enabled and self.compression.takes_shares):
            return None
        found = self.clip.found if self.clip else None
        return self.budget_of(len(found.kept) if found else self.frames.max_frames // FRAMES_PER_GRID)

    def budget_of(self, events: int, kept: int | None = None) -> int:
        """Visual tokens that so many events share.

        Args:
            events: How many are shown.
            kept: How many of them were retrieved; None: all.
        """
        compression, clip = self.compression, self.clip or Clip(self.info.source)
        most = compression.visual_tokens
        if compression.tokens_per_event is None:
            wanted = clip.part_of(compression.token_budget(self.cells, events))
        else:
            kept = events if kept is None else kept
            found = kept < events and compression.rule is not None and not is_about_all(self.question)
            own = clip.part_of(compression.tokens_of(round(kept / clip.share)))
            wanted = events - kept + max(kept, round(own * FOUND_PART) if found else own)
            wanted = wanted if most is None else min(wanted, clip.part_of(most))
        if clip.share == 1 or compression.prompt_tokens is None:
            return wanted
        room = clip.part_of(compression.prompt_tokens) - VISION_MARKS - events * self.overhead
        return max(1, min(wanted, room * self.cells // (self.cells + self.overhead)))

    @property
    def most_events(self) -> int:
        """Events for which there is room.

        Raises:
            ValueError: If there is none for one.
        """
        limits = [self.frames.max_frames // FRAMES_PER_GRID]
        if (budget := self.shared_budget) is not None:
            limits.append(budget)
            if (prompt := self.compression.prompt_tokens) is not None:
                prompt = prompt if self.clip is None else self.clip.part_of(prompt)
                least = 1 + self.overhead + VISION_MARKS
                if prompt < least:
                    raise ValueError(
                        f"a budget of {prompt} tokens in the prompt: a video costs at least {least}; raise "
                        "--prompt-tokens or prompt:N"
                    )
                limits.append(most_grids(prompt - VISION_MARKS, self.overhead))
        return min(limits)


@dataclass(frozen=True)
class Selection:
    """The frames to read.

    Attributes:
        seconds: ``float64 [T]``, ascending, T even.
        grid_events: Event id of each temporal grid, G of them; None: not segmented.
        shares: Tokens for each event; None: equal ones.
        retrieval: What the memory found, if it was asked.
        left_out: Retrieved events for which there was no room.
        memory: Which memory of the video was asked: all of it, or that of some key frames; None: none.
        scope: What the question was taken to be about; None: that was not asked.
    """

    seconds: NDArray[np.float64]
    grid_events: tuple[int, ...] | None = None
    shares: tuple[int, ...] | None = None
    retrieval: Retrieval | None = None
    left_out: int = 0
    memory: MemoryKind | None = None
    scope: QuestionScope | None = None

    @property
    def kept_events(self) -> tuple[Event, ...]:
        """The retrieved events in time order."""
        return tuple(self.retrieval.events[index] for index in self.retrieval.kept) if self.retrieval else ()

    @classmethod
    def of_events(cls, request: FrameRequest, retrieval: Retrieval, fits: int) -> Selection:
        """The frames of the retrieved events, and in layouts that share a budget out some of each other event.

        Args:
            request: What frames are wanted for.
            retrieval: Events and the retrieved ones.
            fits: Events for which there is room, see `FrameRequest.most_events`.
        """
        frames, found = request.frames, len(retrieval.kept)
        retrieval = strongest(retrieval, fits)
        plan = partial(
            plan_frames, retrieval, fps=frames.fps, max_frames=frames.max_frames, starts=request.info.starts
        )
        if request.shared_budget is None:
            planned: FramePlan = plan()
        else:
            if request.compression.tokens_per_event is not None:
                fits = min(fits, unlike_events(retrieval.neighbour_similarity, retrieval.kept))
            budget = request.budget_of(min(fits, len(retrieval.events)), len(retrieval.kept))
            planned = plan(mode="allocate", token_budget=budget, max_events=fits)
        events, left_out = tuple(planned.grid_events.tolist()), found - len(retrieval.kept)
        return cls(planned.seconds, events, planned.shares, retrieval, left_out)


class _CoarseAnswer(NamedTuple):
    """What questions that were asked together knew of a video; its clock tells which these are."""

    clock: StageClock
    memory: CoarseMemory


class FrameSelector(Protocol):
    """Anything that chooses frames."""

    def select(self, request: FrameRequest) -> Selection:
        """The frames to read for a question.

        Raises:
            ValueError: If the video cannot be read, or an option does not fit.
        """
        ...


class UniformSelector:
    """The whole video, sampled evenly."""

    def select(self, request: FrameRequest) -> Selection:
        """See `FrameSelector`."""
        frames, stretch = request.frames, request.stretch
        return Selection(
            sample_times(
                request.info,
                fps=frames.fps,
                max_frames=frames.max_frames,
                min_frames=frames.fewest,
                start=stretch.start,
                end=stretch.end,
            )
        )


@dataclass
class RetrievingSelector:
    """The events of a video that a question is about, from its memory on disk.

    Attributes:
        load_embedder: Gives the dual encoder when it is first needed.
        options: How videos are remembered.
        retrieval: How many events are retrieved, and where memories are kept.
        progress: Is told what share of a video has been read while it is being remembered.
        first: What the first question about a new video waits for.
    """

    load_embedder: Callable[[], EventEmbedder]
    options: MemoryOptions
    retrieval: RetrievalOptions
    progress: Callable[[float], object] | None = None
    first: FirstAnswerOptions = field(default_factory=FirstAnswerOptions)
    _answered: dict[str, _CoarseAnswer] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def embedder(self) -> EventEmbedder:
        """The dual encoder."""
        return self.load_embedder()

    def remember(self, video: str | Path) -> VideoMemory:
        """Cuts a video into events and embeds them, or finds that in the memory on disk."""
        from marc.memory.index import remember

        return remember(video, self.embedder, self.options, folder=self.retrieval.folder, progress=self.progress)

    def retrieve(self, request: FrameRequest) -> Retrieval:
        """The events nearest to the question, of those that lie in the stretch that is asked about."""
        said = _said(request)
        with request.clock.stage("remember"):
            memory = self.remember(request.info.source)
        return self._found(request, memory, said)

    def select(self, request: FrameRequest) -> Selection:
        """See `FrameSelector`; evenly spread frames where the question is taken to be about all of the video."""
        if self.retrieval.takes_for_all(request.question):
            return self._of_all(request)
        room, said = request.most_events, _said(request)
        with request.clock.stage("remember"):
            coarse = self._coarse(request.info, request.clock)
        if coarse is None:
            selection = Selection.of_events(request, self.retrieve(request), room)
            return replace(selection, memory="full", scope="moments")
        selection = Selection.of_events(request, self._found(request, coarse.memory, said), room)
        seconds = coarse.moved(selection.seconds, request.stretch.start)
        return replace(selection, memory="coarse", scope="moments", seconds=seconds)

    def _of_all(self, request: FrameRequest) -> Selection:
        """Evenly spread frames; in which events they lie is looked up where the budget follows from these."""
        selection, compression = replace(UniformSelector().select(request), scope="all"), request.compression
        if not compression.enabled or compression.tokens_per_event is None:
            return selection
        with request.clock.stage("remember"):
            coarse = self._coarse(request.info, request.clock)
            memory: RememberedEvents = coarse.memory if coarse else self.remember(request.info.source)
        if not request.asks_for_all:
            memory = within(memory, request.stretch)
        kind: MemoryKind = "coarse" if coarse else "full"
        return replace(selection, grid_events=events_at(memory, selection.seconds), memory=kind)

    def _found(self, request: FrameRequest, memory: RememberedEvents, said: Subtitles) -> Retrieval:
        with request.clock.stage("retrieve"):
            if not request.asks_for_all:
                memory = within(memory, request.stretch)
            texts = event_texts(said, memory.events) if said.lines else None
            return VisualMemoryRetriever(self.embedder).retrieve(memory, request.question, self.retrieval.k, texts)

    def _coarse(self, info: VideoInfo, clock: StageClock) -> CoarseMemory | None:
        """What key frames tell of a new video that need not be cut first; None: all of it is to be asked.

        Once, but for questions that are asked together, which share a clock.
        """
        from marc.memory.coarse import coarse_memory
        from marc.memory.index import memory_key
        from marc.memory.making import Errand, announce, has_failed, is_being_made
        from marc.memory.store import memory_files

        if self.first.wait or info.duration <= self.first.coarse_above:
            return None
        video, embedder, options = info.source, self.embedder, self.options
        key = memory_key(video, embedder, options)
        if key in self._answered:
            answer = self._answered[key]
            return answer.memory if answer.clock is clock else None
        if memory_files(video, key, self.retrieval.folder) or is_being_made(key) or has_failed(key):
            return None
        announce(key)  # whoever asks from now on waits for all of it
        coarse = coarse_memory(video, embedder, options)
        if coarse is not None:
            self._answered[key] = _CoarseAnswer(clock, coarse)
            if self.first.background:
                Errand.like(embedder, video, options, self.retrieval.folder).send(key)
        return coarse


def _said(request: FrameRequest) -> Subtitles:
    with request.clock.stage("subtitles"):
        return request.subtitles()


@dataclass(frozen=True)
class RandomSelector:
    """One temporal grid at a random place of the video, or of what is retrieved from it.

    The place follows from the file's name alone.

    Attributes:
        memory: Retrieves; None: anywhere in the video.
    """

    memory: RetrievingSelector | None = None

    def select(self, request: FrameRequest) -> Selection:
        """See `FrameSelector`."""
        info, retrieval = request.info, self.memory.retrieve(request) if self.memory else None
        events = retrieval.events if retrieval else (request.stretch,)
        kept = retrieval.kept if retrieval else (0,)
        generator = np.random.default_rng(zlib.crc32(Path(info.source).name.encode()))
        event = events[int(generator.choice(kept))]
        step = 1.0 / request.frames.fps
        start = event.start + generator.random() * max(0.0, event.duration - step)
        seconds = np.minimum(start + step * np.arange(FRAMES_PER_GRID), info.duration)
        return Selection(seconds, (0,), None, retrieval)
