"""Does every file decode? Asked before training, so that nothing bad reaches its loop (``marc data check``).

Every distinct file is read as training will read it, small, in decoding processes that are killed at their time limit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
) -> Iterator[CheckedFile]:
    """Reads every distinct file of the rows once.

    Args:
        rows: Whose files to check.
        root: The data set's folder.
        frames: Frames to read from a video, evenly spread.
        timeout: Time limit for one file, in seconds.
        workers: Files to read at a time.
        checksums: SHA-256 that a file must have, by its path.

    Yields:
        One result per distinct file, in the order of the rows.
    """
    users: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        if row.path is not None:
            users[row.path, row.data_type].append(row.problem_id)

    def problem(file: tuple[str, str]) -> str | None:
        path, data_type = file
        expected = (checksums or {}).get(path)
        return problem_with(Path(root) / path, data_type, frames=frames, timeout=timeout, sha256=expected)

    with ThreadPoolExecutor(workers) as pool:
        for (path, _), ids, found in zip(users, users.values(), pool.map(problem, users), strict=True):
            yield CheckedFile(path, tuple(ids), found)


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
    if sha256 is not None and file_sha256(path) != sha256:
        return "the file is not the one of the manifest (its checksum differs)"
    try:
        if data_type == "image":
            _read_image(path)
        else:
            read_frames(path, max_frames=frames, min_pixels=SMALLEST, max_pixels=SMALLEST, timeout=timeout)
    except (VideoError, OSError) as error:
        return str(error)
    return None


def _read_image(path: Path) -> None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except Image.DecompressionBombError as error:
        raise OSError(str(error)) from error
