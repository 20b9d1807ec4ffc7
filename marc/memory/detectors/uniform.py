"""A boundary every few seconds, whatever is shown: the baseline."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from marc.memory.detectors.base import ShotDetector, Transition


class UniformDetector(ShotDetector):
    """Needs the length of a video only, which the file's header tells.

    Args:
        interval: Seconds from one boundary to the next.
        device: Unused.

    Raises:
        ValueError: If the interval is not positive.
    """

    frame_size = None

    def __init__(self, interval: float = 10.0, *, device: str | None = None) -> None:
        if not interval > 0:
            raise ValueError(f"interval must be a positive number of seconds, got {interval}")
        super().__init__(device=device)
        self.interval = interval

    def finish(self, duration: float) -> Iterable[Transition]:
        """See `ShotDetector.finish`."""
        times = np.arange(1, np.ceil(duration / self.interval)) * self.interval
        return [Transition(t, t, t) for t in times.tolist()]
