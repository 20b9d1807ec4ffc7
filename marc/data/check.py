"""Does every file decode? Asked before training, so that nothing bad reaches its loop (``marc data check``).

Every distinct file is read as training will read it, small, in decoding processes that are killed at their time limit.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from marc.data.rows import TrainingRow
from marc.data.sampling import file_sha256
from marc.video import VideoError, read_frames

SMALLEST = 4 * 28**2


@dataclass(frozen=True)
class CheckedFile:
    """What became of one file.

    Attributes:
        path: The file as written in the rows.
        rows: Ids of the rows that need it.
        problem: Why it cannot be used; None if it can.
    """

    path: str
    rows: tuple[str, ...]
    problem: str | None


def check_files(
    rows: Sequence[TrainingRow],
    root: str | Path,
    *,
    frames: int = 64,
    timeout: float = 60.0,
    workers: int = 2,
    checksums: Mapping[str, str] | None = None,
    journal: Path | None = None,
) -> Iterator[CheckedFile]:
    """Reads every distinct file of the rows once.

    Args:
        rows: Whose files to check.
        root: The data set's folder.
        frames: Frames to read from a video, evenly spread.
        timeout: Time limit for one file, in seconds.
        workers: Files to read at a time.
        checksums: SHA-256 that a file must have, by its path.
        journal: A file to note the good ones in; those that are there and have not changed are not read again.

    Yields:
        One result per distinct file, in the order of the rows.
    """
    users: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        if row.path is not None:
            users[row.path, row.data_type].append(row.problem_id)

    known = set(journal.read_text(encoding="utf-8").splitlines()) if journal and journal.exists() else set()

    def look(file: tuple[str, str]) -> tuple[str, str | None]:
        """What the journal would say of a good file, and the problem if it is none."""
        path, data_type = file
        expected = (checksums or {}).get(path)
        mark = json.dumps([path, data_type, frames, expected, *_state(Path(root) / path)])
        if mark in known:
            return mark, None
        return mark, problem_with(Path(root) / path, data_type, frames=frames, timeout=timeout, sha256=expected)

    with (
        ThreadPoolExecutor(workers) as pool,
        journal.open("a", encoding="utf-8") if journal else nullcontext() as file,
    ):
        for (path, _), ids, (mark, problem) in zip(users, users.values(), pool.map(look, users), strict=True):
            if file and problem is None and mark not in known:
                file.write(f"{mark}\n")
                file.flush()
            yield CheckedFile(path, tuple(ids), problem)


def _state(path: Path) -> tuple[int, int]:
    """Size and time of change of a file; zeros if there is none."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def problem_with(
    path: Path, data_type: str, *, frames: int = 64, timeout: float = 60.0, sha256: str | None = None
) -> str | None:
    """Why a video or image cannot be used; None if it can.

    Args:
        path: The file.
        data_type: ``"video"`` or ``"image"``.
        frames: Frames to read from a video.
        timeout: Time limit in seconds.
        sha256: Checksum that the file must have, if known.
    """
    if not path.is_file():
        return "there is no such file"
    try:
        if sha256 is not None and file_sha256(path) != sha256:
            return "the file is not the one of the manifest (its checksum differs)"
        if data_type == "image":
            _read_image(path)
        else:
            read_frames(path, max_frames=frames, min_pixels=SMALLEST, max_pixels=SMALLEST, timeout=timeout)
    except VideoError as error:
        return str(error)
    except Exception as error:  # whatever a decoder makes of a damaged file is that file's problem alone
        return f"{type(error).__name__}: {error}"
    return None


def _read_image(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as image:
        image.load()
