"""Running jobs in decoding processes that are kept warm between calls and killed when they exceed their limit.

A decoder that hangs in C code can be stopped in no other way. The price, measured in docs/decoding.md, is the start of
one process that imports numpy and PyAV only; frames come back in shared memory. Concurrent jobs, from threads or as
streams that are read in turns, get a process each.

POSIX only.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marc.interpreter import python_running
from marc.video.channel import Channel
from marc.video.errors import VideoError
from marc.video.jobs import Job
from marc.video.limits import current_limits
from marc.video.worker import Failure, Signal

START_LIMIT = 60.0

Result = tuple[Any, "NDArray[np.uint8] | None"]


class DecodingProcess:
    """One process of `marc.video.worker`, and the connection to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                python_running(f"from marc.video.worker import serve; serve({theirs.fileno()})"),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self._channel = Channel(ours)
        self._is_ready = False
        self.is_busy = False

    def run(self, job: Job, timeout: float, ahead: int = 1) -> Iterator[Result]:
        """Run a job to its end, working ahead. `is_busy` tells whether the end was reached.

        Args:
            job: What to do.
            timeout: Seconds that each result may take.
            ahead: How many results may wait to be taken.

        Yields:
            Each result and the frames that belong to it.

        Raises:
            VideoError: From the job, or because a result took too long or the process died.
        """
        self.is_busy = True
        self._wait_until_ready()
        self._send(job, (job, timeout, current_limits()), *[Signal.NEXT] * ahead)
        while True:
            result, frames = self._receive(job, timeout)
            if result is Signal.DONE or isinstance(result, Failure):
                break
            self._send(job, Signal.NEXT)
            yield result, frames
        self.is_busy = False
        if isinstance(result, Failure):
            cause = RuntimeError(f"in the decoding process:\n{result.traceback}") if result.traceback else None
            raise VideoError(result.message) from cause

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether it can take a job."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it, whatever it is doing, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        self._channel.close()

    def disown(self) -> None:
        """Hang up without ending it: it belongs to the process that this one was forked from."""
        self._process.returncode = 0
        self._channel.close()

    def _wait_until_ready(self) -> None:
        if self._is_ready:
            return
        try:
            if not self._channel.arrives(START_LIMIT):
                raise RuntimeError(
                    f"the decoding process did not start within {START_LIMIT:g} s; is the machine busy?"
                )
            self._channel.receive()
        except (EOFError, ConnectionError) as error:
            raise RuntimeError("the decoding process could not start; its own error message is above") from error
        self._is_ready = True

    def _send(self, job: Job, *messages: Any) -> None:
        try:
            for message in messages:
                self._channel.send(message)
        except ConnectionError as error:
            raise self._crash(job) from error

    def _receive(self, job: Job, timeout: float) -> Result:
        try:
            if self._channel.arrives(timeout):
                return self._channel.receive()
        except (EOFError, ConnectionError) as error:
            raise self._crash(job) from error
        raise VideoError(
            f"{job.path}: the decoder gave nothing for {timeout:g} s and was stopped; the file is damaged or very "
            "long: encode it again, read a shorter stretch, or allow more with timeout= (--video-timeout)"
        )

    def _crash(self, job: Job) -> VideoError:
        status = self._process.wait()
        cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return VideoError(
            f"{job.path}: the decoder crashed ({cause}); the file is damaged, or needs more memory than there is or "
            "than --limit-memory allows; encode it again"
        )


class ProcessPool:
    """Decoding processes that wait for their next job, as many as have ever been busy at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[DecodingProcess] = []
        self._all: set[DecodingProcess] = set()
        self._is_closed_at_exit = False

    def run(self, job: Job, timeout: float, ahead: int = 1) -> Iterator[Result]:
        """Run a job as `DecodingProcess.run` does; its process is kept if the job was run to its end, else killed."""
        process = self._take()
        try:
            yield from process.run(job, timeout, ahead)
        finally:
            if process.is_busy:
                self._discard(process)
            else:
                with self._lock:
                    self._idle.append(process)

    def warm_up(self) -> None:
        """Start a process, without waiting for it, unless one is waiting."""
        process = self._take()
        with self._lock:
            self._idle.append(process)

    def close(self) -> None:
        """Kill all processes."""
        with self._lock:
            processes = list(self._all)
            self._idle.clear()
        for process in processes:
            self._discard(process)

    def after_fork(self) -> None:
        """In a forked child: leave the processes to the parent."""
        self._lock = threading.Lock()
        self._is_closed_at_exit = False
        for process in self._all:
            process.disown()
        self._all.clear()
        self._idle.clear()

    def _take(self) -> DecodingProcess:
        while True:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            if process is None:
                process = DecodingProcess()
                with self._lock:
                    self._all.add(process)
                self._close_at_exit()
                return process
            if process.is_alive():
                return process
            self._discard(process)

    def _close_at_exit(self) -> None:
        """Register `close` where, unlike with `atexit`, the children of `multiprocessing` run it too."""
        if not self._is_closed_at_exit:
            self._is_closed_at_exit = True
            Finalize(None, self.close, exitpriority=0)

    def _discard(self, process: DecodingProcess) -> None:
        with self._lock:
            self._all.discard(process)
        process.kill()


POOL = ProcessPool()
os.register_at_fork(after_in_child=POOL.after_fork)
