"""One process of a machine makes the memory of a video; whoever wants it meanwhile waits for it.

Who makes one holds a lock in the user's cache folder, which a killed process gives back, and writes there how far it
is. Where no such folder can be written, or on another machine, both do the work, and the last one's file stays.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock, Timeout

from marc.interpreter import python_running
from marc.memory.options import MemoryOptions
from marc.memory.store import cache_folder

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder

logger = logging.getLogger(__name__)

Progress = Callable[[float], object]

LOOK_INTERVAL = 0.2
"""Seconds between two looks at how far another process is."""
TELL_INTERVAL = 1.0
_SENT: list[subprocess.Popen[bytes]] = []
"""Processes that work for this one, so that they are collected when they have ended."""


@contextmanager
def made_alone(key: str, progress: Progress | None) -> Iterator[Progress]:
    """Waits until no other process makes the memory of this key, and holds others off inside.

    Args:
        key: Of the memory.
        progress: Is told how far the other process is, and how far this one.

    Yields:
        What is to be told how far this process is.
    """
    tell = progress or _nobody
    folder = cache_folder("making")
    share, lock = folder / f"{key}.share", FileLock(folder / f"{key}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _wait_for(lock, share, tell)
    except OSError as error:
        logger.info("whether another process remembers the same video is not known: %s", error)
        yield tell
        return
    announce(key)
    try:
        yield _Told(share, tell)
    finally:
        for done in (share, _maker(key), _failure(key), Path(lock.lock_file)):
            done.unlink(missing_ok=True)
        lock.release()


def announce(key: str, process: int | None = None) -> None:
    """Has others wait for the memory of this key, for as long as a process lives; without a cache they do not.

    Args:
        key: Of the memory.
        process: Who makes it, or will; None: this one.
    """
    with suppress(OSError):
        file = _maker(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(process or os.getpid()))


def is_being_made(key: str) -> bool:
    """Whether a process of this machine makes the memory of this key, or is about to, and lives."""
    for process in _SENT:
        process.poll()  # one that has ended would be there until somebody asked
    try:
        os.kill(int(_maker(key).read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def has_failed(key: str) -> bool:
    """Whether a process that was sent to make the memory of this key could not."""
    try:
        return _failure(key).exists()
    except OSError:
        return False


def note_failure(key: str) -> None:
    """Has the next question about a video find out why its memory cannot be made."""
    with suppress(OSError):
        _failure(key).touch()


def _maker(key: str) -> Path:
    return cache_folder("making") / f"{key}.maker"


def _failure(key: str) -> Path:
    return cache_folder("making") / f"{key}.failed"


def _wait_for(lock: FileLock, share: Path, tell: Progress) -> None:
    while True:
        try:
            lock.acquire(timeout=LOOK_INTERVAL)
        except Timeout:
            with suppress(OSError, ValueError):
                tell(float(share.read_text()))
        else:
            return


def _nobody(share: float) -> None:
    """Whom nothing interests."""


class _Told:
    """Writes a share down for other processes now and then, and hands it on."""

    def __init__(self, file: Path, tell: Progress) -> None:
        self._file, self._tell, self._last = file, tell, -TELL_INTERVAL

    def __call__(self, share: float) -> None:
        self._tell(share)
        if (now := time.monotonic()) - self._last >= TELL_INTERVAL:
            self._last = now
            with suppress(OSError):
                self._file.write_text(f"{share:.4f}")


@dataclass(frozen=True)
class Errand:
    """A memory to be made, as it travels to a process of its own.

    Attributes:
        video: Path.
        embedder: Name or folder of the dual encoder.
        precision: Its number format.
        device: Where it runs, as PyTorch names it.
        options: How the video is cut and embedded.
        folder: Where memories are kept; None: beside the video.
    """

    video: str
    embedder: str
    precision: Literal["fp32", "bf16"]
    device: str
    options: MemoryOptions
    folder: str | None

    @classmethod
    def like(cls, embedder: EventEmbedder, video: str | Path, options: MemoryOptions, folder: str | None) -> Errand:
        """The errand to make what `marc.memory.index.remember` would make."""
        precision: Literal["fp32", "bf16"] = "fp32" if embedder.precision == "fp32" else "bf16"
        return cls(os.path.abspath(video), embedder.name, precision, str(embedder.device), options, folder)

    def send(self, key: str) -> int:
        """Have a new process run it, which goes on when this one has ended.

        Args:
            key: Of the memory.

        Returns:
            The number of the process.
        """
        code = "from marc.memory.behind import main; main(*sys.argv[1:])"
        process = subprocess.Popen(
            python_running(code, key, json.dumps(asdict(self))),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _SENT.append(process)
        announce(key, process.pid)
        logger.info("%s: process %d makes its memory", self.video, process.pid)
        return process.pid

    @classmethod
    def received(cls, text: str) -> Errand:
        """What `send` sent."""
        fields = json.loads(text)
        return cls(**{**fields, "options": MemoryOptions(**fields["options"])})
