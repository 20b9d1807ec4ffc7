"""The registry of benchmarks, and the readers that turn their files into samples.

Two protocols. ``video-r1`` reads the ``eval_<name>.json`` files of Video-R1-eval as they are: the protocol behind the
published table. ``official`` reads each benchmark's own annotation files with its own prompts, grouping and average.
See what each needs: ``marc eval --list``. Whether it is all there: ``marc eval --benchmark vsi --data DIR --check``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from marc.data.containment import check_inside
from marc.data.prompts import render_benchmark_question, render_question
from marc.data.row_files import load_rows
from marc.evaluation import official
from marc.evaluation.official import OfficialReader, OfficialRow
from marc.evaluation.samples import Row, Sample, require, require_text, texts
from marc.grading import PROBLEM_TYPES, known_problem_type

MEDIA_ENDINGS = (".mp4", ".MP4", ".mkv")
"""Where annotations name a video .mp4 or by its stem, its file may also have one of the others."""
DATA_TYPES = ("video", "image", "frame")
EvaluationProtocol = Literal["video-r1", "official"]
EVALUATION_PROTOCOLS: tuple[str, ...] = get_args(EvaluationProtocol)


@dataclass(frozen=True)
class ProtocolSpec:
    """What one protocol of one benchmark needs, and how its headline is averaged.

    Attributes:
        files: Annotation files under the data folder, without suffix; ``*`` and ``**`` as in globs.
        headline: ``"mean"`` over samples; ``"accuracy+mra"``: the mean of the mean accuracy and the mean MRA; or
            ``"macro:GROUP"``: the mean over the values of a group; ``"macro:GROUP/PART"``: each of which is the mean
            over the values of a second one.
        max_new_tokens: Generation limit of the protocol.
        source: Where to get the files.
        reader: Reads one official row; None for Video-R1-eval's format.
        note: What a reader of the numbers must know.
        style: Prompt style, for Video-R1-eval's format.
        rules: Official scoring rule by problem type, for Video-R1-eval's format.
        revisions: Folders of videos that only one revision of a data set has, where the others cannot be used.
    """

    files: tuple[str, ...]
    headline: str
    max_new_tokens: int
    source: str
    reader: OfficialReader | None = None
    note: str = ""
    style: str = "video-r1"
    rules: Mapping[str, str] = field(default_factory=dict)
    revisions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def revision_of(self, folder: Path) -> str | None:
        """Which of `revisions` the videos below a folder are of; None if it is none that is known."""
        return next(
            (name for name, parts in self.revisions.items() if any(any(folder.glob(f"**/{part}")) for part in parts)),
            None,
        )


@dataclass(frozen=True)
class Benchmark:
    """One entry of the registry.

    Attributes:
        name: Short name, for commands and folders.
        title: Name as in the published table.
        protocols: What each protocol needs, the default first.
    """

    name: str
    title: str
    protocols: Mapping[str, ProtocolSpec]

    @property
    def default_protocol(self) -> str:
        """The protocol that is used unless another is asked for."""
        return next(iter(self.protocols))

    def spec(self, protocol: str) -> ProtocolSpec:
        """One protocol's needs.

        Raises:
            ValueError: If the benchmark has no such protocol.
        """
        if protocol not in self.protocols:
            raise ValueError(f"{self.name} has no protocol {protocol!r}; it has {', '.join(self.protocols)}")
        return self.protocols[protocol]


_VIDEO_R1_EVAL = (
    "huggingface.co/datasets/Video-R1/Video-R1-eval, with the videos beside the JSON files under their `path`"
)


def _video_r1(stem: str, headline: str = "mean", note: str = "") -> ProtocolSpec:
    return ProtocolSpec((f"eval_{stem}",), headline, 1024, _VIDEO_R1_EVAL, note=note)


_BENCHMARKS = (
    Benchmark(
        "vsi",
        "VSI",
        {
            "video-r1": _video_r1("vsibench", "accuracy+mra"),
            "official": ProtocolSpec(
                ("**/test",),
                "macro:task/question type",
                16,
                "huggingface.co/datasets/nyu-visionx/VSI-Bench",
                official.read_vsi,
            ),
        },
    ),
    Benchmark(
        "videommmu",
        "VideoMMMU",
        {
            "video-r1": _video_r1("videommmu", note="Its file names the full videos."),
            "official": ProtocolSpec(
                ("**/Perception/test", "**/Comprehension/test", "**/Adaptation/test"),
                "macro:track",
                1024,
                "huggingface.co/datasets/lmms-lab/VideoMMMU",
                official.read_videommmu,
            ),
        },
    ),
    Benchmark(
        "mmvu",
        "MMVU",
        {
            "video-r1": _video_r1("mmvu", note="Multiple-choice part only."),
            "official": ProtocolSpec(
                ("**/validation",),
                "mean",
                1024,
                "huggingface.co/datasets/yale-nlp/MMVU",
                official.read_mmvu,
                note="Open questions are scored by rules, without a judge; see the forms apart.",
            ),
        },
    ),
    Benchmark(
        "mvbench",
        "MVBench",
        {
            "video-r1": _video_r1(
                "mvbench",
                note="Videos are not clipped. 200 rows are folders of frames: "
                "Video-R1's own script asks these without pictures.",
            ),
            "official": ProtocolSpec(
                ("**/json/*",),
                "macro:task",
                16,
                "huggingface.co/datasets/OpenGVLab/MVBench (revision video)",
                official.read_mvbench,
                note="Needs the revision `video`: others have other folders.",
                revisions=official.MVBENCH_REVISIONS,
            ),
        },
    ),
    Benchmark(
        "tempcompass",
        "TempCompass",
        {
            "video-r1": _video_r1("tempcompass", note="All multiple choice."),
            "official": ProtocolSpec(
                ("**/multi-choice/test", "**/yes_no/test", "**/caption_matching/test"),
                "macro:task",
                128,
                "huggingface.co/datasets/lmms-lab/TempCompass",
                official.read_tempcompass,
                note="Captioning needs a language model as judge and is left out: three of the four tasks.",
            ),
        },
    ),
    Benchmark(
        "videomme",
        "VideoMME",
        {
            "video-r1": _video_r1("videomme"),
            "official": ProtocolSpec(
                ("**/test",),
                "mean",
                16,
                "huggingface.co/datasets/lmms-lab/Video-MME",
                official.read_videomme,
                note="Without subtitles, unless `subtitles` of the card says that they are in the prompt.",
            ),
        },
    ),
)

_WORLD_SPEC = ProtocolSpec(
    ("eval_world",),
    "mean",
    64,
    "`marc world export`; made by itself where it is missing",
    note="Free answers count if they are the same words.",
    rules={"multiple choice": "letter", "free-form": "exact"},
)
_WORLD_SOURCE = "marc-world-"
"""How the ``data_source`` of each of the micro-world's rows begins."""
WORLD = Benchmark("world", "Micro-world", {"official": _WORLD_SPEC})

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in (WORLD, *_BENCHMARKS)}


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by its name, or a file in Video-R1-eval's format by its path.

    A file that has the name of a published benchmark's file is that benchmark. `marc world export` has one name for
    all that it writes: with the rows that it writes by default, such a file is the micro-world; with others it is a
    benchmark of its own, asked and scored as the micro-world is. Any other file is scored by ``video-r1``'s rules.

    Raises:
        ValueError: If it is neither.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    path = Path(name)
    if path.suffix not in (".json", ".jsonl"):
        raise ValueError(f"unknown benchmark {name!r}; choose one of {', '.join(BENCHMARKS)} or give a .json file")
    here = (str(path.resolve().with_suffix("")),)
    if path.stem in _WORLD_SPEC.files and path.is_file():
        return _world_of(path, replace(_WORLD_SPEC, files=here))
    for known in _BENCHMARKS:
        for protocol, spec in known.protocols.items():
            if path.stem in spec.files:
                return replace(known, protocols={protocol: replace(spec, files=here)})
    own = _own_name(path)
    return Benchmark(own, own, {"video-r1": ProtocolSpec(here, "mean", 1024, str(path))})


def _world_of(path: Path, spec: ProtocolSpec) -> Benchmark:
    """The benchmark that a file with the name of the micro-world's is, by its rows."""
    rows = load_rows(path)
    own = _own_name(path)
    if not all(isinstance(row, dict) and str(row.get("data_source")).startswith(_WORLD_SOURCE) for row in rows):
        return Benchmark(own, own, {"video-r1": ProtocolSpec(spec.files, "mean", 1024, str(path))})
    if _asked(rows) == _asked(_default_world_rows()):
        return replace(WORLD, protocols={WORLD.default_protocol: spec})
    return Benchmark(own, f"{WORLD.title} ({_folder_name(path)})", {WORLD.default_protocol: spec})


def _asked(rows: Iterable[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """What of the micro-world's rows is asked, whatever else they say."""
    return [tuple(row.get(name) for name in ("path", "problem", "options", "solution")) for row in rows]


def _default_world_rows() -> list[dict[str, Any]]:
    """The rows that `marc world export` writes if it is told nothing else, without their videos."""
    from marc.world.export import rows_of
    from marc.world.levels import sample
    from marc.world.options import WorldOptions

    world = WorldOptions()
    drawn = [sample(world.level, "test", world.seed, index) for index in range(world.videos)]
    return rows_of(drawn, world, "test")


def _own_name(path: Path) -> str:
    """What a user's file is called: as its name says, behind that of its folder where a benchmark is called so."""
    stem = path.stem.removeprefix("eval_")
    taken = {called.casefold() for known in BENCHMARKS.values() for called in (known.name, known.title)}
    return f"{_folder_name(path)}-{stem or 'eval'}" if not stem or stem.casefold() in taken else stem


def _folder_name(path: Path) -> str:
    return path.absolute().parent.name or "own"


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
