"""Is everything there, and does it decode? Asked before any GPU hour is spent (``marc eval --check``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from marc.data.check import problem_with
from marc.evaluation.samples import Sample


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
        problems = pool.map(lambda file: problem_with(Path(file[0]), file[1], frames=frames, timeout=timeout), users)
        for (path, _), ids, problem in zip(users, users.values(), problems, strict=True):
            yield CheckedFile(path, tuple(ids), problem)
