"""Is everything there, and does it decode? Asked before any GPU hour is spent (``marc eval --check``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from marc.evaluation.samples import Sample
from marc.video import VideoError, read_frames

SMALLEST = 4 * 28**2


@dataclass(frozen=True)
class CheckedFile:
    """What became of one file.

    Attributes:
        path: The file.
        samples: Ids of the samples that need it.
        problem: Why it cannot be used; None if it can.
    """

    path: str
    samples: tuple[str, ...]
    problem: str | None


def check_files(
    samples: Iterable[Sample], *, frames: int = 64, timeout: float = 60.0, workers: int = 2
) -> Iterator[CheckedFile]:
    """Reads from every distinct file what a run would read, small.

    Args:
        samples: Whose files to check.
        frames: Frames to read from a video, evenly spread.
        timeout: Time limit for one file, in seconds.
        workers: Files to read at a time.

    Yields:
        One result per distinct file, in the order of the samples.
    """
    users: dict[tuple[str, str], list[str]] = {}
    for sample in samples:
        users.setdefault((sample.path, sample.data_type), []).append(sample.id)
    with ThreadPoolExecutor(workers) as pool:
        problems = pool.map(lambda file: _problem_with(*file, frames=frames, timeout=timeout), users)
        for (path, _), ids, problem in zip(users, users.values(), problems, strict=True):
            yield CheckedFile(path, tuple(ids), problem)


def _problem_with(path: str, data_type: str, *, frames: int, timeout: float) -> str | None:
    if not Path(path).is_file():
        return "no such file"
    try:
        if data_type == "image":
            _read_image(path)
        else:
            read_frames(path, max_frames=frames, min_pixels=SMALLEST, max_pixels=SMALLEST, timeout=timeout)
    except (VideoError, OSError) as error:
        return str(error)
    return None


def _read_image(path: str) -> None:
    from PIL import Image

    with Image.open(path) as image:
        image.load()
