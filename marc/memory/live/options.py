"""What is kept of a source that does not end: the only declaration of these options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from marc.options import Limits, OptionError, check
from marc.types import FRAMES_PER_GRID


@dataclass(frozen=True)
class LiveOptions:
    """What is kept of a source that does not end.

    Attributes:
        recent_seconds: The last seconds are kept in full size.
        recent_fps: Frames per second that are kept of them; those of events are taken from these.
        recent_mib: Room for these in MiB; where frames are too large for it, fewer seconds are kept.
        event_frames: Frames that are kept of an event, in pairs.
        event_pixels: Largest area of these in pixels.
        memory_mib: Room for events in MiB; beyond it neighbours are joined to chapters.
        most_events: Most events and chapters; likewise.
        whole_seconds: Events younger than that are joined only if no older ones are left.
        gap_seconds: So long without a frame is a gap: an event ends before it.

    Raises:
        ValueError: If a value is out of range.
    """

    recent_seconds: Annotated[float, Limits(above=0)] = 30.0
    recent_fps: Annotated[float, Limits(above=0)] = 2.0
    recent_mib: Annotated[float, Limits(above=0)] = 64.0
    event_frames: Annotated[int, Limits(least=FRAMES_PER_GRID)] = 8
    event_pixels: Annotated[int, Limits(least=4)] = 200_704
    memory_mib: Annotated[float, Limits(above=0)] = 512.0
    most_events: Annotated[int, Limits(least=2)] = 4096
    whole_seconds: Annotated[float, Limits(least=0)] = 600.0
    gap_seconds: Annotated[float, Limits(above=0)] = 5.0

    def __post_init__(self) -> None:
        check(self)
        if self.event_frames % FRAMES_PER_GRID:
            raise OptionError("event_frames", f"must be even, as frames are read in pairs, got {self.event_frames}")
