"""How videos are remembered and how their events are retrieved: the only declaration of these options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from marc.memory.detectors import check_detector
from marc.memory.events import MAX_SECONDS, MIN_SECONDS
from marc.memory.question import is_about_all
from marc.options import Limits, Named, OptionError, check

Scope = Literal["moments", "all", "auto"]
"""What questions are taken to be about."""


@dataclass(frozen=True)
class MemoryOptions:
    """How a video is cut into events, and what is kept of each.

    Attributes:
        segmenter: Shot detector: transnetv2, scenedetect, uniform, or one of your own as ``package.module:Class``.
        min_event_seconds: Join shorter events with a neighbour.
        max_event_seconds: Split longer events; a small budget of tokens wants few events.
        seconds_per_frame: Take one frame in so many seconds as a keyframe, and at least one of each event; of an event
            that is a whole shot one keyframe in two is embedded.
        thumbnail_width: Width of the stored pictures in pixels.

    Raises:
        ValueError: If a value is out of range, or there is no such segmenter.
    """

    segmenter: str = "transnetv2"
    min_event_seconds: Annotated[float, Limits(least=0)] = MIN_SECONDS
    max_event_seconds: Annotated[float, Limits(above=0)] = MAX_SECONDS
    seconds_per_frame: Annotated[float, Limits(above=0)] = 4.0
    thumbnail_width: Annotated[int, Limits(least=1)] = 160

    def __post_init__(self) -> None:
        check(self)
        check_detector(self.segmenter)
        if self.max_event_seconds < 2 * self.min_event_seconds:
            raise OptionError(
                "max_event_seconds",
                f"must be at least twice min_event_seconds ({self.min_event_seconds}), so that every longer event can "
                f"be split, got {self.max_event_seconds}",
            )


@dataclass(frozen=True)
class FirstAnswerOptions:
    """What the first question about a new video waits for.

    Attributes:
        wait: Cut a new video into events before its first answer, however long that takes.
        coarse_above: Without wait, a new video of more seconds than this is first answered from its key frames alone.
        background: Make its memory in a process of its own meanwhile, which goes on when the command has ended.

    Raises:
        ValueError: If a value is out of range, or nothing is left to be done in the background.
    """

    wait: bool = True
    coarse_above: Annotated[float, Limits(least=0)] = 120.0
    background: bool = False

    def __post_init__(self) -> None:
        check(self)
        if self.background and self.wait:
            raise OptionError("background", "is for answers that do not wait for the memory; leave --wait out")


@dataclass(frozen=True)
class RetrievalOptions:
    """Which events of a remembered video are read for a question, and where memories are.

    Attributes:
        k: Events to retrieve, or auto for the cut at the widest gap of their scores.
        embedder: Embedding model of the memory: tiny (shipped; knows generated videos only), an open_clip model such
            as PE-Core-T-16-384, a repository such as google/siglip2-base-patch16-224, or a folder; ``None``: the one
            that goes with the answering model.
        folder: Where memories are kept; ``None``: beside each video.
        scope: What a question is about: auto goes by its words (English ones); moments are retrieved events; all is
            the whole video, whose frames are then spread evenly.

    Raises:
        ValueError: If k is neither positive nor ``"auto"``, or there is no such scope.
    """

    k: Annotated[int | Literal["auto"], Limits(least=1)] = 3
    embedder: str | None = None
    folder: Annotated[str | None, Named("memory_folder")] = None
    scope: Scope = "auto"

    def takes_for_all(self, question: str) -> bool:
        """Whether a question is taken to be about all of a video, for which nothing is retrieved."""
        return self.scope == "all" or (self.scope == "auto" and is_about_all(question))

    def __post_init__(self) -> None:
        check(self)
