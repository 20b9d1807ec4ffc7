"""How fast, how exact and how large the search over all remembered videos is.

    python -m benchmarks.search_benchmark --events 1000000

writes a library of made-up event vectors to a temporary folder, indexes it, and prints the table of docs/memory.md.
The vectors imitate embeddings: the events of one video lie around a centre, the centres in a subspace of
``--intrinsic`` dimensions, everything on the unit sphere; every question lies near one event. One in ten, in 100 and
in 1,000 videos has a tag. The search runs in a process of its own, so that its memory is its own. Exact answers are
those of cosines in float64 among the 100 best in float32.

Shape legend: N events, D embedding dimensions, Q questions.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import lancedb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marc.memory.filters import EventFilter
from marc.memory.tables import NPROBES, build_filter_indices, build_index, nearest_rows

Result = TypeVar("Result")

TABLE = "events"
EVENTS_PER_VIDEO = 50
BLOCK = 50_000
NEIGHBOURS = 10
CANDIDATES = 100
EVENT_SECONDS = 20.0
SHARES = (10, 100, 1000)
"""One in so many videos has the tag of this number."""
FILTERS = {
    "": EventFilter(),
    "half of each video": EventFilter(after=EVENT_SECONDS * EVENTS_PER_VIDEO / 2),
    "one tag, 10 % of the videos": EventFilter(tags=("10",)),
    "one tag, 1 %": EventFilter(tags=("100",)),
    "one tag, 0.1 %": EventFilter(tags=("1000",)),
    "one video": EventFilter(videos=("/videos/7.mp4",)),
}
COLUMNS = ("number", "source", "start", "end", "tags", "vector")


def event_vectors(count: int, dimension: int, intrinsic: int, seed: int = 0) -> Iterator[NDArray[np.float32]]:
    """Unit vectors in blocks ``float32 [<= BLOCK, D]``; see the module's docstring."""
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((intrinsic, dimension), dtype=np.float32) / np.float32(intrinsic**0.5)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        centres = rng.standard_normal((-(-size // EVENTS_PER_VIDEO), intrinsic), dtype=np.float32)
        within = rng.standard_normal((size, intrinsic), dtype=np.float32)
        noise = rng.standard_normal((size, dimension), dtype=np.float32)
        yield unit((np.repeat(centres, EVENTS_PER_VIDEO, axis=0)[:size] + 0.5 * within) @ basis + 0.3 * noise)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows at unit length."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def passing(count: int) -> dict[str, NDArray[np.int64]]:
    """Numbers of the events that pass each filter."""
    numbers = np.arange(count)
    video, position = numbers // EVENTS_PER_VIDEO, numbers % EVENTS_PER_VIDEO
    passes = {
        "": numbers >= 0,
        "half of each video": (position + 1) * EVENT_SECONDS > EVENT_SECONDS * EVENTS_PER_VIDEO / 2,
        "one video": video == 7,
        **{name: video % int(wish.tags[0]) == 0 for name, wish in FILTERS.items() if wish.tags},
    }
    return {name: np.flatnonzero(passes[name]) for name in FILTERS}


def exact_neighbours(
    vectors_ND: NDArray[np.float32], questions_QD: NDArray[np.float32], numbers: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Numbers ``[Q, 10]`` of those of some events that are nearest to each question."""
    chosen = [numbers[start : start + BLOCK] for start in range(0, len(numbers), BLOCK)]
    scores_QN = np.concatenate([questions_QD @ vectors_ND[some].T for some in chosen], axis=1)
    best_QC = np.argpartition(-scores_QN, min(CANDIDATES, len(numbers)) - 1, axis=1)[:, :CANDIDATES]
    cosines_QC = np.einsum(
        "qcd,qd->qc", vectors_ND[numbers[best_QC]].astype(np.float64), questions_QD.astype(np.float64)
    )
    order_QC = np.argsort(-cosines_QC, axis=1)[:, :NEIGHBOURS]
    return np.take_along_axis(numbers[best_QC], order_QC, axis=1)


def prepare(folder: Path, count: int, dimension: int, intrinsic: int, questions: int) -> dict[str, float]:
    """Write library, questions and exact answers; returns seconds and megabytes."""
    vectors_ND = np.concatenate(list(event_vectors(count, dimension, intrinsic)))
    rng = np.random.default_rng(1)
    chosen = vectors_ND[rng.integers(count, size=questions)]
    noise = rng.standard_normal(chosen.shape, dtype=np.float32) / np.sqrt(np.float32(dimension))
    questions_QD = unit(chosen + 0.5 * noise)
    answers = [exact_neighbours(vectors_ND, questions_QD, numbers) for numbers in passing(count).values()]
    np.savez(folder / "questions.npz", questions=questions_QD, answers=np.stack(answers))
    scans = [timed(partial(np.matmul, vectors_ND, query))[0] for query in questions_QD[:20]]
    kinds = (
        pa.int64(),
        pa.string(),
        pa.float64(),
        pa.float64(),
        pa.list_(pa.string()),
        pa.list_(pa.float32(), dimension),
    )
    schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)))
    database = lancedb.connect(folder / "library")
    written, table = timed(partial(database.create_table, TABLE, record_batches(vectors_ND), schema=schema))
    vectors_megabytes = folder_megabytes(folder / "library")
    del vectors_ND
    indexed, _ = timed(lambda: build_index(table))
    filters_indexed, _ = timed(lambda: build_filter_indices(table))
    return {
        "brute_force_ms": 1000 * float(np.median(scans)),
        "write_s": written,
        "index_s": indexed,
        "filters_s": filters_indexed,
        "vectors_mb": vectors_megabytes,
        "index_mb": folder_megabytes(folder / "library") - vectors_megabytes,
    }


def record_batches(vectors_ND: NDArray[np.float32]) -> Iterator[pa.RecordBatch]:
    """Events as LanceDB takes them."""
    for start in range(0, len(vectors_ND), BLOCK):
        block = vectors_ND[start : start + BLOCK]
        numbers = np.arange(start, start + len(block))
        videos, starts = numbers // EVENTS_PER_VIDEO, EVENT_SECONDS * (numbers % EVENTS_PER_VIDEO)
        tags = [[str(share) for share in SHARES if video % share == 0] for video in videos.tolist()]
        sources = [f"/videos/{video}.mp4" for video in videos.tolist()]
        vectors = pa.FixedSizeListArray.from_arrays(block.ravel(), block.shape[1])
        values = (numbers, sources, starts, starts + EVENT_SECONDS, tags, vectors)
        yield pa.record_batch(dict(zip(COLUMNS, values, strict=True)))


def measure(folder: Path, nprobes: int, wish: str = "") -> dict[str, float]:
    """Search every question in a fresh process; ``nprobes = 0`` scans without the index."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.search_benchmark",
        "--measure",
        str(folder),
        "--nprobes",
        str(nprobes),
        "--filter",
        wish,
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def search_all(folder: Path, nprobes: int, wish: str = "") -> dict[str, float]:
    """Milliseconds per question by the clock and of all cores, recall@10 and resident memory of this process."""
    stored = np.load(folder / "questions.npz")
    before = resident_megabytes()
    table = lancedb.connect(folder / "library").open_table(TABLE)
    where = FILTERS[wish].condition(table.schema.names)
    found: list[set[int]] = []
    milliseconds: list[float] = []
    processor = 0.0
    questions = stored["questions"][: 20 if nprobes == 0 else None]
    for query in np.concatenate([questions, questions]):
        processor -= time.process_time()
        seconds, rows = timed(
            partial(nearest_rows, table, query, NEIGHBOURS, ["number", "_distance"], nprobes=nprobes, where=where)
        )
        processor += time.process_time()
        milliseconds.append(1000 * seconds)
        found.append(set(rows["number"].to_pylist()))
    warm = milliseconds[len(questions) :]
    answers = stored["answers"][list(FILTERS).index(wish)][: len(questions)].tolist()
    hits = [len(numbers & set(answer)) for numbers, answer in zip(found[len(questions) :], answers, strict=True)]
    return {
        "first_ms": milliseconds[0],
        "processor_ms": 1000 * processor / len(milliseconds),
        "p50_ms": float(np.percentile(warm, 50)),
        "p95_ms": float(np.percentile(warm, 95)),
        "recall": sum(hits) / (NEIGHBOURS * len(hits)),
        "memory_mb": resident_megabytes() - before,
    }


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds that something took, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def folder_megabytes(folder: Path) -> float:
    """Size of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def resident_megabytes() -> float:
    """Memory of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def report(count: int, prepared: dict[str, float], searches: dict[str, dict[str, float]]) -> str:
    """The table of docs/memory.md."""
    vectors, index = prepared["vectors_mb"], prepared["index_mb"]
    lines = [
        f"{count:,} events: vectors {vectors:,.0f} MB on disk, written in {prepared['write_s']:.0f} s;",
        f"indices {index:,.0f} MB more, that of vectors built in {prepared['index_s']:.0f} s, those of filters in "
        f"{prepared['filters_s']:.0f} s.",
        "",
        "| search | recall@10 | median ms | 95 % ms | first ms | processor ms | memory MB |",
        "|---|---|---|---|---|---|---|",
        f"| numpy, vectors in memory | 1.000 | {prepared['brute_force_ms']:.1f} | | | | {vectors:,.0f} |",
    ]
    for name, found in searches.items():
        times = " | ".join(f"{found[column]:.1f}" for column in ("p50_ms", "p95_ms", "first_ms", "processor_ms"))
        lines.append(f"| {name} | {found['recall']:.3f} | {times} | {found['memory_mb']:,.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Entry point of ``python -m benchmarks.search_benchmark``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512, help="of the embeddings; 512 is PE-Core-T's")
    parser.add_argument("--intrinsic", type=int, default=32, help="dimensions of the subspace of the videos' centres")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--nprobes", type=int, nargs="+", default=[20, 40, 64, 96], help="inverted lists to read")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--filter", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(search_all(options.measure, options.nprobes[0], options.filter)))
        return
    with tempfile.TemporaryDirectory(prefix="marc-search-") as name:
        folder = Path(name)
        prepared = prepare(folder, options.events, options.dimension, options.intrinsic, options.questions)
        searches = {"LanceDB without index": measure(folder, 0)}
        searches |= {f"LanceDB, {nprobes} lists read": measure(folder, nprobes) for nprobes in options.nprobes}
        searches |= {wish: measure(folder, NPROBES, wish) for wish in FILTERS if wish}
    print(report(options.events, prepared, searches))


if __name__ == "__main__":
    main()
