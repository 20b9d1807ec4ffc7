"""What is found out about files without reading frames, asked once for as long as these stay as they are.

A file is known by its path, device, inode and size, and by when it was changed last. One that changed within the last
second is looked at again: its next change might bear the same time.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

from marc.io import file_state
from marc.video.jobs import Job
from marc.video.limits import DecodeLimits, current_limits
from marc.video.process import POOL

KEPT = 1024
"""Answers that are kept."""
SETTLED_SECONDS = 1.0


def ask(job: Job, timeout: float) -> Any:
    """What a job without frames says of its file.

    Args:
        job: What to find out.
        timeout: Seconds after which to give up.

    Raises:
        VideoError: From the job; errors are not kept.
    """
    state = _settled_state(job.path)
    return _known(job, timeout, state, current_limits()) if state else _answer(job, timeout)


def _settled_state(path: str) -> tuple[int, ...] | None:
    """What tells a file from what it was before; None if it is gone, or nothing tells it for certain."""
    try:
        state = file_state(path)
    except OSError:
        return None
    return state if time.time() - state[-1] / 1e9 > SETTLED_SECONDS else None


@lru_cache(maxsize=KEPT)
def _known(job: Job, timeout: float, _: tuple[int, ...], __: DecodeLimits) -> Any:
    return _answer(job, timeout)


def _answer(job: Job, timeout: float) -> Any:
    ((answer, _),) = POOL.run(job, timeout)
    return answer
