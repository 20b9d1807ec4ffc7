"""The time of a source whose own clock may stop, fall back or jump."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from marc.memory.live.snapshot import Gap

JITTER = 0.1
"""Seconds by which a clock may fall back without being taken for another one."""
USUAL_STEP = 0.04


@dataclass
class SourceClock:
    """Turns what a source says of its frames' times into seconds since the first frame, which never fall.

    Where the source's clock falls back, time goes on behind the last frame; where it jumps ahead, it is believed, and
    what lies between is a gap.

    Attributes:
        gap_seconds: So long without a frame is a gap.
        latest: The time of the last frame; None before the first.
        gaps: What is to be noted since `take_gaps`.
    """

    gap_seconds: float
    latest: float | None = None
    _shift: float | None = None
    _step: float = USUAL_STEP
    _gaps: list[Gap] = field(default_factory=list)

    def time_of(self, second: float) -> float:
        """The time of the next frame.

        Args:
            second: What the source says.

        Raises:
            ValueError: That is no number.
        """
        if not math.isfinite(second):
            raise ValueError(f"the time of a frame is a number of seconds, got {second}")
        if self._shift is None:
            self._shift = -second if self.latest is None else self.latest + self._step - second
        time = second + self._shift
        if self.latest is None:
            self.latest = time
            return time
        if time < self.latest - JITTER:
            fell = self.latest - time
            time = self.latest + self._step
            self._shift = time - second
            self._gaps.append(Gap(time, time, f"the source's clock fell back by {fell:.1f} s"))
        elif time - self.latest >= self.gap_seconds:
            self._gaps.append(Gap(self.latest, time, "no frames came"))
        elif time > self.latest:
            self._step = time - self.latest
        self.latest = max(time, self.latest)
        return self.latest

    def shifted(self, second: float) -> float:
        """The time of a frame that is not the next one, by the clock as it is now."""
        return second + (self._shift or 0.0)

    def restart(self, second: float | None = None) -> None:
        """The source begins anew, with a clock of its own.

        Args:
            second: The time of its first frame; None: right behind the last one.
        """
        self._shift = None
        if second is not None and self.latest is not None and second > self.latest + self._step:
            self._gaps.append(Gap(self.latest, second, "the source was lost"))
            self.latest = second - self._step

    def finish(self, end: float | None, longest: float) -> float:
        """The source is over: the time at which its last frame was, from now on that of the clock.

        Args:
            end: Where the source says that it ends; None, or far from the last frame: that lasts as long as the one
                before it.
            longest: Seconds for which it lasts at most then.
        """
        if self.latest is None:
            return 0.0
        known = None if end is None else self.shifted(end)
        if known is not None and self.latest < known < self.latest + self.gap_seconds:
            self.latest = known
        else:
            self.latest += min(self._step, longest)
        return self.latest

    def take_gaps(self) -> list[Gap]:
        """The gaps that have not been taken yet."""
        gaps, self._gaps = self._gaps, []
        return gaps
