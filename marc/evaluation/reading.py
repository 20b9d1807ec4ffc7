"""Reads the files of benchmarks: their annotations become samples, and media are found where annotations name them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from marc.data.containment import check_inside
from marc.data.prompts import render_benchmark_question, render_question
from marc.data.row_files import load_rows
from marc.evaluation.benchmarks import Benchmark, ProtocolSpec
from marc.evaluation.official import OfficialReader, OfficialRow
from marc.evaluation.samples import Row, Sample, require, require_text, texts
from marc.grading import PROBLEM_TYPES, known_problem_type

MEDIA_ENDINGS = (".mp4", ".MP4", ".mkv")
"""Where annotations name a video .mp4 or by its stem, its file may also have one of the others."""
DATA_TYPES = ("video", "image", "frame")


def load_samples(
    benchmark: Benchmark,
    *,
    protocol: str,
    data: Path,
    videos: Path | None = None,
    allow_outside: bool = False,
    style: str | None = None,
    limit: int | None = None,
) -> list[Sample]:
    """All samples of a benchmark, in the order of its files.

    Args:
        benchmark: From `find_benchmark`.
        protocol: One of `EVALUATION_PROTOCOLS`.
        data: Folder of the annotation files.
        videos: Folder that the video paths start from; defaults to the annotation files'.
        allow_outside: Whether annotations may name videos outside of it.
        style: Prompt style (`marc.data.prompts`) for files in Video-R1-eval's format; None takes the benchmark's.
        limit: Keep so many samples, evenly spread over the benchmark.

    Raises:
        ValueError: If the annotation files are missing, or a row lacks a column, has an unknown type or a path that
            leads out of the folder.
    """
    spec = benchmark.spec(protocol)
    files = annotation_files(benchmark, protocol, data)
    if spec.reader is None:
        spec = spec if style is None else replace(spec, style=style)
        samples = [
            _video_r1_samples(benchmark.name, file, videos or file.parent, spec, allow_outside) for file in files
        ]
    else:
        if style is not None:
            raise ValueError(f"style {style!r}: the official protocol of {benchmark.title} has its own prompts")
        media = MediaIndex(videos or (own if (own := data / benchmark.name).is_dir() else data))
        samples = [_official_samples(benchmark.name, file, spec.reader, media, allow_outside) for file in files]
    return spread(renumbered(sample for group in samples for sample in group), limit)


def annotation_files(benchmark: Benchmark, protocol: str, data: Path) -> list[Path]:
    """The annotation files of one protocol: ``.jsonl``, ``.json`` or ``.parquet``, in shards or whole.

    Files that may lie anywhere are looked for in a folder with the benchmark's name first, as several benchmarks call
    one "test"; all others lie in the folder itself, or in that one.

    Raises:
        ValueError: If one of the protocol's files is missing; the message says where to get it.
    """
    spec = benchmark.spec(protocol)
    own = data / benchmark.name
    found: list[Path] = []
    for pattern in spec.files:
        first, second = (own, data) if pattern.startswith("**/") else (data, own)
        files = _files_of(pattern, first) or _files_of(pattern, second)
        if not files:
            raise ValueError(
                f"{benchmark.title} ({protocol}): no {pattern}.json, .jsonl or .parquet under {data}; "
                f"get it from {spec.source}"
            )
        found += files
    return found


def _files_of(pattern: str, data: Path) -> list[Path]:
    """The files of one pattern in the first of the formats that is there."""
    folder, _, stem = pattern.rpartition("/")
    root, below = (Path(folder), "") if Path(pattern).is_absolute() else (data, f"{folder}/" if folder else "")
    name = re.compile(re.escape(stem).replace(r"\*", ".*") + r"(-\d+-of-\d+)?")
    for suffix in (".jsonl", ".json", ".parquet"):
        files = [file for file in sorted(root.glob(f"{below}*{suffix}")) if name.fullmatch(file.stem)]
        if files:
            return files
    return []


def spread(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """At most ``limit`` samples at even distances, so that every part of a benchmark is represented."""
    if limit is None or limit >= len(samples):
        return list(samples)
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    return [samples[index * len(samples) // limit] for index in range(limit)]


def renumbered(samples: Iterable[Sample]) -> list[Sample]:
    """The samples with ids that count on over several files."""
    return [replace(sample, id=f"{sample.id}/{index:06d}") for index, sample in enumerate(samples)]


def _annotations(file: Path) -> list[dict[str, Any]]:
    rows = load_rows(file)
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{file}, row {index}: expected an object, got {type(row).__name__}")
    return rows


@contextmanager
def _row_errors(where: str) -> Iterator[None]:
    """Has whatever is wrong with a row be a `ValueError` that names it."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        if isinstance(error, ValueError) and str(error).startswith(where):
            raise
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise ValueError(f"{where}: {kind}{error}") from error


def _video_r1_samples(name: str, file: Path, videos: Path, spec: ProtocolSpec, allow_outside: bool) -> list[Sample]:
    samples = []
    for index, row in enumerate(_annotations(file)):
        with _row_errors(where := f"{file}, row {index}"):
            samples.append(_video_r1_sample(name, row, where, videos, spec))
            if not allow_outside:
                check_inside(row["path"], videos)
    return samples


def _video_r1_sample(name: str, row: Row, where: str, videos: Path, spec: ProtocolSpec) -> Sample:
    problem_type = known_problem_type(require_text(row, "problem_type", where))
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(f"{where}: unknown problem_type {problem_type!r}; known: {', '.join(PROBLEM_TYPES)}")
    data_type = row.get("data_type") or "video"
    if data_type not in DATA_TYPES:
        raise ValueError(f"{where}: unknown data_type {data_type!r}; known: {', '.join(DATA_TYPES)}")
    options = texts(row, "options", where)
    question = require_text(row, "problem", where)
    return Sample(
        id=name,
        path=str(_video_r1_path(require_text(row, "path", where), videos)),
        question=question,
        prompt=render_question(question, problem_type=problem_type, options=options, style=spec.style),
        problem_type=problem_type,
        solution=str(require(row, "answer" if row.get("solution") is None and "answer" in row else "solution", where)),
        data_type=data_type,
        options=options,
        rule=spec.rules.get(problem_type, "grade"),
        groups={"type": problem_type, **_extra_groups(row)},
    )


_GROUP_COLUMNS = ("task", "question_type", "original_question_type", "category", "duration", "events", "data_source")


def _extra_groups(row: Row) -> dict[str, str]:
    values = {column: str(row[column]) for column in _GROUP_COLUMNS if row.get(column) not in (None, "")}
    return {column: value for column, value in values.items() if "://" not in value}  # one address for each video


def _video_r1_path(path: str, videos: Path) -> Path:
    """Where a video is: paths begin with ``./Evaluation/``, and annotations may lie beside that folder or in it."""
    named = PurePosixPath(path)
    within = videos.joinpath(*named.parts[1:]) if named.parts[:1] == ("Evaluation",) else videos / path
    places = (videos / path, videos / "Evaluation" / path, within)
    return next((place for place in places if os.path.exists(place) or place.with_suffix("").is_dir()), places[0])


def _official_samples(
    name: str, file: Path, reader: OfficialReader, media: MediaIndex, allow_outside: bool
) -> list[Sample]:
    part = file.parent.name if file.stem.startswith(("test", "validation")) else file.stem
    samples = []
    for index, row in enumerate(_annotations(file)):
        with _row_errors(where := f"{file}, row {index}"):
            read = reader(row, part, where)
            if not allow_outside:
                check_inside(read.media, media.folder)
            samples.append(_official_sample(name, read, media))
    return samples


def _official_sample(name: str, read: OfficialRow, media: MediaIndex) -> Sample:
    return Sample(
        id=name,
        path=str(media.find(read.media)),
        question=read.question,
        prompt=render_benchmark_question(name, read.kind, read.question, read.options),
        problem_type=read.problem_type,
        solution=read.solution,
        options=read.options,
        rule=read.rule,
        groups=read.groups,
    )


class MediaIndex:
    """Finds videos by the end of their path, however their archives were unpacked below one folder.

    Args:
        folder: The folder to search, once.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._paths: dict[str, list[Path]] = {}
        seen: set[tuple[int, int]] = set()
        for parent, folders, names in os.walk(folder, followlinks=True):
            status = os.stat(parent)
            if (status.st_dev, status.st_ino) in seen:  # a link that leads back
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            for name in names:
                self._paths.setdefault(name, []).append(Path(parent, name))

    def find(self, suffix: str) -> Path:
        """The one file whose path ends so; the path that it should have where there is none.

        Raises:
            ValueError: If several files match.
        """
        ending = PurePosixPath(suffix).parts
        if not ending:
            raise ValueError(f"{suffix!r} names no video")
        stem, suffix_of_name = os.path.splitext(ending[-1])
        for other in MEDIA_ENDINGS if suffix_of_name == MEDIA_ENDINGS[0] else (suffix_of_name,):
            wanted = (*ending[:-1], stem + other)
            if matches := [path for path in self._paths.get(wanted[-1], []) if path.parts[-len(ending) :] == wanted]:
                break
        if len(matches) > 1:
            raise ValueError(f"{self.folder}: {suffix!r} is ambiguous: {matches[0]} or {matches[1]}")
        return matches[0] if matches else self.folder / suffix
