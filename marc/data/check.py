"""Is every file there, and does it decode? Asked before GPU hours are spent (`marc data check`, `marc eval --check`).

Every distinct file is read as it will be read, small, in decoding processes that are killed at their time limit.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from marc.io import cause_of, drop_torn_line, sha256_file
from marc.video import VideoError, read_frames
from marc.video.frame_folders import read_frame_folder
from marc.video.pictures import read_picture

SMALL_SIDE = 2 * 28
SMALLEST = SMALL_SIDE**2

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class CheckOptions:
    """How files are checked.

    Attributes:
        frames: Frames to read from a video, evenly spread.
        timeout: Time limit for one file, in seconds.
        workers: Files to read at a time.
    """

    frames: int = 64
    timeout: float = 60.0
    workers: int = 2


class FileUser(Protocol):
    """What needs a file: a row of training, a sample of a benchmark."""

    @property
    def id(self) -> str:
        """What it is called."""

    @property
    def path(self) -> str | None:
        """The file; None where it needs none."""

    @property
    def data_type(self) -> str:
        """``"video"``, ``"image"`` or ``"frame"``, a folder of frames."""


@dataclass(frozen=True)
class CheckedFile:
    """What became of one file.

    Attributes:
        path: The file as its users write it.
        data_type: What they take it for, ``"video"`` or ``"image"``.
        users: Ids of the rows or samples that need it.
        problem: Why it cannot be used; None if it can.
    """

    path: str
    data_type: str
    users: tuple[str, ...]
    problem: str | None

    @property
    def key(self) -> tuple[str, str]:
        """By which `needed_files` knows it."""
        return self.path, self.data_type


Needed = dict[tuple[str, str], list[str]]
"""Files, by path and kind of input, with the ids of those that need them."""


def needed_files(users: Iterable[FileUser]) -> Needed:
    """The distinct files that rows or samples need, in their order."""
    files: Needed = defaultdict(list)
    for user in users:
        if user.path is not None:
            files[user.path, user.data_type].append(user.id)
    return files


def check_files(
    users: Iterable[FileUser],
    root: str | Path = "",
    options: CheckOptions = CheckOptions(),
    *,
    checksums: Mapping[str, str] | None = None,
    journal: Path | None = None,
) -> Iterator[CheckedFile]:
    """Reads every distinct file once; see `check_needed`."""
    return check_needed(needed_files(users), root, options, checksums=checksums, journal=journal)


def check_needed(
    files: Needed,
    root: str | Path = "",
    options: CheckOptions = CheckOptions(),
    *,
    checksums: Mapping[str, str] | None = None,
    journal: Path | None = None,
) -> Iterator[CheckedFile]:
    """Reads files as they will be read.

    Args:
        files: From `needed_files`.
        root: Folder that their paths start from.
        options: How.
        checksums: SHA-256 that a file must have, by its path.
        journal: A file to note the good ones in; those that are there and have not changed are not read again.

    Yields:
        One result per file, in their order.
    """
    known: set[bytes] = set()
    if journal:
        drop_torn_line(journal)
        known.update(journal.read_bytes().splitlines() if journal.exists() else ())

    def look(file: tuple[str, str]) -> tuple[bytes, str | None]:
        """What the journal would say of a good file, and the problem if it is none."""
        path, data_type = file
        expected = (checksums or {}).get(path)
        mark = json.dumps([path, data_type, options.frames, expected, *_state(Path(root) / path)]).encode()
        if mark in known:
            return mark, None
        return mark, problem_with(Path(root) / path, data_type, options, sha256=expected)

    with (
        ThreadPoolExecutor(options.workers) as pool,
        journal.open("ab") if journal else nullcontext() as notes,
    ):
        looks = _in_order(pool, look, files, ahead=2 * options.workers)
        for file, ids, (mark, problem) in zip(files, files.values(), looks, strict=True):
            if notes and problem is None and mark not in known:
                notes.write(mark + b"\n")
                notes.flush()
            yield CheckedFile(*file, tuple(ids), problem)


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int
) -> Iterator[_Result]:
    """As ``pool.map``, but no more than a few items are waiting at a time."""
    waiting: deque[Future[_Result]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _state(path: Path) -> tuple[int, int]:
    """Size and time of change of a file; zeros if there is none, or can be none of that name."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return 0, 0
    return status.st_size, status.st_mtime_ns


def problem_with(
    path: Path, data_type: str, options: CheckOptions = CheckOptions(), *, sha256: str | None = None
) -> str | None:
    """Why a video or image cannot be used; None if it can.

    Args:
        path: The file.
        data_type: ``"video"`` or ``"image"``.
        options: How much of it to read, and for how long.
        sha256: Checksum that the file must have, if known.
    """
    if data_type != "frame" and not os.path.isfile(path):  # which also says so of names that no file can have
        return "there is no such file"
    try:
        if sha256 is not None and sha256_file(path) != sha256:
            return "the file is not the one of the manifest (its checksum differs)"
        small: dict[str, Any] = {"min_pixels": SMALLEST, "max_pixels": SMALLEST, "timeout": options.timeout}
        if data_type == "image":
            read_picture(path, (SMALL_SIDE, SMALL_SIDE), timeout=options.timeout)
        elif data_type == "frame":
            read_frame_folder(path, max_frames=options.frames, **small)
        else:
            read_frames(path, max_frames=options.frames, **small)
    except VideoError as error:
        return str(error)
    except Exception as error:  # whatever a decoder makes of a damaged file is that file's problem alone
        return cause_of(error)
    return None
