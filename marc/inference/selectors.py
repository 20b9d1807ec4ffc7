"""Which frames of a video a model is to see for a question.

- `UniformSelector` samples the whole video evenly, as Qwen2.5-VL and Video-R1 do.
- `RetrievingSelector` asks the Visual Memory Retriever: the events nearest to the question, and in the event layout
  one temporal grid of every other event.
- `RandomSelector` reads one temporal grid at a random place, a baseline.

Another way to choose is a class with one method.

Shapes: T frames, G temporal grids.
"""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from marc.compression import CompressionConfig
from marc.compression.plan import most_grids
from marc.inference.stages import StageClock
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.memory.select import FramePlan, VisualMemoryRetriever, plan_frames, strongest
from marc.types import FRAMES_PER_GRID, VISION_MARKS, Event, Retrieval, VideoInfo
from marc.video import sample_times
from marc.video.options import FrameOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from marc.memory.embedder import EventEmbedder
    from marc.memory.store import VideoMemory


logger = logging.getLogger(__name__)


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
    """

    info: VideoInfo
    question: str
    frames: FrameOptions
    compression: CompressionConfig
    cells: int
    overhead: int
    clock: StageClock

    @property
    def most_events(self) -> int:
        """Events for which there is room.

        Raises:
            ValueError: If there is none for one.
        """
        limits = [self.frames.max_frames // FRAMES_PER_GRID]
        if self.compression.enabled and self.compression.layout == "events":
            limits.append(self.compression.token_budget(self.cells))
            if (prompt := self.compression.prompt_tokens) is not None:
                least = 1 + self.overhead + VISION_MARKS
                if prompt < least:
                    raise ValueError(f"prompt_tokens {prompt}: a video costs at least {least} tokens in the prompt")
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
    """

    seconds: NDArray[np.float64]
    grid_events: tuple[int, ...] | None = None
    shares: tuple[int, ...] | None = None
    retrieval: Retrieval | None = None

    @classmethod
    def of_plan(cls, plan: FramePlan, retrieval: Retrieval) -> Selection:
        """The frames of some events."""
        return cls(plan.seconds, tuple(plan.grid_events.tolist()), plan.shares, retrieval)


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
        frames = request.frames
        return Selection(
            sample_times(request.info, fps=frames.fps, max_frames=frames.max_frames, min_frames=frames.fewest)
        )


@dataclass
class RetrievingSelector:
    """The events of a video that a question is about, from its memory on disk.

    Attributes:
        load_embedder: Gives the dual encoder when it is first needed.
        options: How videos are remembered.
        retrieval: How many events are retrieved, and where memories are kept.
        progress: Is told what share of a video has been read while it is being remembered.
    """

    load_embedder: Callable[[], EventEmbedder]
    options: MemoryOptions
    retrieval: RetrievalOptions
    progress: Callable[[float], object] | None = None

    @cached_property
    def embedder(self) -> EventEmbedder:
        """The dual encoder."""
        return self.load_embedder()

    def remember(self, video: str | Path) -> VideoMemory:
        """Cuts a video into events and embeds them, or finds that in the memory on disk."""
        from marc.memory.index import remember

        return remember(video, self.embedder, self.options, folder=self.retrieval.folder, progress=self.progress)

    def retrieve(self, request: FrameRequest) -> Retrieval:
        """The events nearest to the question."""
        with request.clock.stage("remember"):
            memory = self.remember(request.info.source)
        with request.clock.stage("retrieve"):
            return VisualMemoryRetriever(self.embedder).retrieve(memory, request.question, self.retrieval.k)

    def select(self, request: FrameRequest) -> Selection:
        """See `FrameSelector`."""
        frames, compression = request.frames, request.compression
        shares_out = compression.layout == "events" and compression.enabled
        budget = compression.token_budget(request.cells) if shares_out else None
        fits = request.most_events
        retrieval = self.retrieve(request)
        if len(retrieval.kept) > fits:
            logger.warning("%s: %d events fit into the budget, not %d", request.info.source, fits, len(retrieval.kept))
            retrieval = strongest(retrieval, fits)
        plan = partial(plan_frames, retrieval, fps=frames.fps, max_frames=frames.max_frames)
        if not shares_out:
            return Selection.of_plan(plan(), retrieval)
        return Selection.of_plan(plan(mode="allocate", token_budget=budget, max_events=fits), retrieval)


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
        events = retrieval.events if retrieval else (Event(0.0, info.duration),)
        kept = retrieval.kept if retrieval else (0,)
        generator = np.random.default_rng(zlib.crc32(Path(info.source).name.encode()))
        event = events[int(generator.choice(kept))]
        step = 1.0 / request.frames.fps
        start = event.start + generator.random() * max(0.0, event.duration - step)
        seconds = np.minimum(start + step * np.arange(FRAMES_PER_GRID), info.duration)
        return Selection(seconds, (0,), None, retrieval)
