"""Is every file there, and does it decode? Asked before GPU hours are spent (`marc data check`, `marc eval --check`).

Every distinct file is read as it will be read, small, in decoding processes that are killed at their time limit.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from marc.io import sha256_file
from marc.video import VideoError, read_frames
from marc.video.pictures import read_picture

SMALLEST = 4 * 28**2


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
        """``"video"`` or ``"image"``."""


@dataclass(frozen=True)
class CheckedFile:
    """What became of one file.

    Attributes:
        path: The file as its users write it.
        users: Ids of the rows or samples that need it.
        problem: Why it cannot be used; None if it can.
    """

    path: str
    users: tuple[str, ...]
    problem: str | None


def check_files(
    users: Iterable[FileUser],
    root: str | Path = "",
    options: CheckOptions = CheckOptions(),
    *,
    checksums: Mapping[str, str] | None = None,
    journal: Path | None = None,
) -> Iterator[CheckedFile]:
    """Reads every distinct file once.

    Args:
        users: Whose files to check.
        root: Folder that their paths start from.
        options: How.
        checksums: SHA-256 that a file must have, by its path.
        journal: A file to note the good ones in; those that are there and have not changed are not read again.

    Yields:
        One result per distinct file, in the order of the users.
    """
    files: dict[tuple[str, str], list[str]] = defaultdict(list)
    for user in users:
        if user.path is not None:
            files[user.path, user.data_type].append(user.id)

    known = set(journal.read_text(encoding="utf-8").splitlines()) if journal and journal.exists() else set()

    def look(file: tuple[str, str]) -> tuple[str, str | None]:
        """What the journal would say of a good file, and the problem if it is none."""
        path, data_type = file
        expected = (checksums or {}).get(path)
        mark = json.dumps([path, data_type, options.frames, expected, *_state(Path(root) / path)])
        if mark in known:
            return mark, None
        return mark, problem_with(Path(root) / path, data_type, options, sha256=expected)

    with (
        ThreadPoolExecutor(options.workers) as pool,
        journal.open("a", encoding="utf-8") if journal else nullcontext() as notes,
    ):
        for (path, _), ids, (mark, problem) in zip(files, files.values(), pool.map(look, files), strict=True):
            if notes and problem is None and mark not in known:
                notes.write(f"{mark}\n")
                notes.flush()
            yield CheckedFile(path, tuple(ids), problem)


def _state(path: Path) -> tuple[int, int]:
    """Size and time of change of a file; zeros if there is none."""
    try:
        status = path.stat()
    except OSError:
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
    if not path.is_file():
        return "there is no such file"
    try:
        if sha256 is not None and sha256_file(path) != sha256:
            return "the file is not the one of the manifest (its checksum differs)"
        if data_type == "image":
            read_picture(path)
        else:
            most, limit = options.frames, options.timeout
            read_frames(path, max_frames=most, min_pixels=SMALLEST, max_pixels=SMALLEST, timeout=limit)
    except VideoError as error:
        return str(error)
    except Exception as error:  # whatever a decoder makes of a damaged file is that file's problem alone
        return f"{type(error).__name__}: {error}"
    return None
