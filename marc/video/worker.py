"""The decoding process: runs jobs that arrive on a socket until the other side hangs up.

The other side sends a job with its limits, then one `Signal.NEXT` for each result it wants. Each is answered by a
result, or by the end of the job: `Signal.DONE` or a `Failure`. After that,
requests that are left over count for nothing.

The process dies by itself, even while it hangs in C code, when a result has taken its limit and a little more: a
kernel timer does it, so nothing is left behind if the process that asked is killed first.
"""

from __future__ import annotations

import errno
import resource
import signal
import socket
import traceback
from contextlib import closing
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marc.extras import MissingExtraError
from marc.video.channel import Channel, SharedBuffer
from marc.video.errors import VideoError
from marc.video.jobs import Job
from marc.video.limits import out_of_memory, set_limits

GRACE = 5.0


class Signal(Enum):
    """What both sides say besides jobs and results."""

    READY = auto()
    NEXT = auto()
    DONE = auto()


@dataclass(frozen=True)
class Failure:
    """How a job ended early.

    Attributes:
        message: What the `VideoError` says.
        traceback: Of an error that nobody foresaw; the file is damaged in a new way, or the fault is ours.
    """

    message: str
    traceback: str = ""


def serve(descriptor: int) -> None:
    """Run jobs from the socket with this descriptor until the other side closes it."""
    with closing(Channel(socket.socket(fileno=descriptor))) as channel:
        try:
            channel.send(Signal.READY)
            while True:
                message, _ = channel.receive()
                if message is not Signal.NEXT:  # asked for ahead of a job's end
                    job, seconds, limits = message
                    set_limits(limits)
                    _limit_memory(limits.memory_gib)
                    _run(job, seconds, channel)
        except (EOFError, ConnectionError):
            return


def _limit_memory(gib: float) -> None:
    """Have the system refuse more memory of one's own; frames that are handed over are shared and do not count."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _run(job: Job, limit: float, channel: Channel) -> None:
    buffers: list[SharedBuffer] = []

    def allocate(shape: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        buffers.append(SharedBuffer(shape))
        return buffers[-1].array

    results = job.run(allocate)
    while True:
        request, _ = channel.receive()
        assert request is Signal.NEXT, request
        signal.setitimer(signal.ITIMER_REAL, limit + GRACE)
        result: Any
        try:
            result = next(results, Signal.DONE)
        except (VideoError, MissingExtraError) as error:
            result = Failure(str(error))
        except MemoryError:
            result = Failure(str(out_of_memory(job.path)))
        except Exception as error:  # what libraries make of damaged bytes has no end; the traceback goes along
            result = Failure(_unforeseen(job, error), traceback.format_exc())
        signal.setitimer(signal.ITIMER_REAL, 0)
        buffer = buffers.pop() if buffers else None
        channel.send(result, buffer)
        if buffer is not None:
            buffer.close()
        if result is Signal.DONE or isinstance(result, Failure):
            return


_THE_SYSTEMS = (errno.EFBIG, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""Errors of full disks and memories, and of limits on files."""


def _unforeseen(job: Job, error: Exception) -> str:
    cause = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, OSError) and error.errno in _THE_SYSTEMS:
        return f"{job.path}: reading it needs more than the system gives ({error.strerror}); the file is not to blame"
    return (
        f"{job.path}: reading it failed ({cause[:300]}); the file is damaged in a way that was not foreseen: encode "
        "it again, or report this with the file and the traceback"
    )
