"""The registry of benchmarks, and what a file of the user's is; `marc.evaluation.reading` makes samples of the files.

Two protocols. ``video-r1`` reads the ``eval_<name>.json`` files of Video-R1-eval as they are: the protocol behind the
published table. ``official`` reads each benchmark's own annotation files with its own prompts, grouping and average.
See what each needs: ``marc eval --list``. Whether it is all there: ``marc eval --benchmark vsi --data DIR --check``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from marc.data.row_files import load_rows
from marc.evaluation import official
from marc.evaluation.official import OfficialReader

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
