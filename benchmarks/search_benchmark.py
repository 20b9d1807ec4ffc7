"""How fast, how exact and how large the search over all remembered videos is.

    python -m benchmarks.search_benchmark --events 1000000

writes a library of made-up event vectors to a temporary folder, indexes it, and prints the table of docs/memory.md.
The vectors imitate embeddings: the events of one video lie around a centre, the centres in a subspace of
``--intrinsic`` dimensions, everything on the unit sphere; every question lies near one event. The search runs in a
process of its own, so that its memory is its own. Exact answers are computed in float32 by matrix products.

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

from marc.memory.tables import build_index, nearest_rows

Result = TypeVar("Result")

TABLE = "events"
EVENTS_PER_VIDEO = 50
BLOCK = 50_000
NEIGHBOURS = 10


def event_vectors(count: int, dimension: int, intrinsic: int, seed: int = 0) -> Iterator[NDArray[np.float32]]:
    """Unit vectors in blocks ``float32 [<= BLOCK, D]``; see the module's docstring."""
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((intrinsic, dimension), dtype=np.float32) / np.sqrt(intrinsic)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        centres = rng.standard_normal((-(-size // EVENTS_PER_VIDEO), intrinsic), dtype=np.float32)
        within = rng.standard_normal((size, intrinsic), dtype=np.float32)
        noise = rng.standard_normal((size, dimension), dtype=np.float32)
        yield unit((np.repeat(centres, EVENTS_PER_VIDEO, axis=0)[:size] + 0.5 * within) @ basis + 0.3 * noise)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows at unit length."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def exact_neighbours(vectors_ND: NDArray[np.float32], questions_QD: NDArray[np.float32]) -> NDArray[np.int64]:
    """Numbers ``[Q, 10]`` of the events nearest to each question."""
    scores_QN = np.concatenate(
        [questions_QD @ vectors_ND[start : start + BLOCK].T for start in range(0, len(vectors_ND), BLOCK)], axis=1
    )
    return np.argpartition(-scores_QN, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]


def prepare(folder: Path, count: int, dimension: int, intrinsic: int, questions: int) -> dict[str, float]:
    """Write library, questions and exact answers; returns seconds and megabytes."""
    vectors_ND = np.concatenate(list(event_vectors(count, dimension, intrinsic)))
    rng = np.random.default_rng(1)
    chosen = vectors_ND[rng.integers(count, size=questions)]
    noise = rng.standard_normal(chosen.shape, dtype=np.float32) / np.sqrt(np.float32(dimension))
    questions_QD = unit(chosen + 0.5 * noise)
    np.savez(folder / "questions.npz", questions=questions_QD, answers=exact_neighbours(vectors_ND, questions_QD))
    scans = [timed(partial(np.matmul, vectors_ND, query))[0] for query in questions_QD[:20]]
    schema = pa.schema([("number", pa.int64()), ("vector", pa.list_(pa.float32(), dimension))])
    database = lancedb.connect(folder / "library")
    written, table = timed(partial(database.create_table, TABLE, record_batches(vectors_ND), schema=schema))
    vectors_megabytes = folder_megabytes(folder / "library")
    del vectors_ND
    indexed, _ = timed(lambda: build_index(table))
    return {
        "brute_force_ms": 1000 * float(np.median(scans)),
        "write_s": written,
        "index_s": indexed,
        "vectors_mb": vectors_megabytes,
        "index_mb": folder_megabytes(folder / "library") - vectors_megabytes,
    }


def record_batches(vectors_ND: NDArray[np.float32]) -> Iterator[pa.RecordBatch]:
    """Numbered vectors as LanceDB takes them."""
    for start in range(0, len(vectors_ND), BLOCK):
        block = vectors_ND[start : start + BLOCK]
        column = pa.FixedSizeListArray.from_arrays(block.ravel(), block.shape[1])
        yield pa.record_batch({"number": pa.array(np.arange(start, start + len(block))), "vector": column})


def measure(folder: Path, nprobes: int) -> dict[str, float]:
    """Search every question in a fresh process; ``nprobes = 0`` scans without the index."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.search_benchmark",
        "--measure",
        str(folder),
        "--nprobes",
        str(nprobes),
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def search_all(folder: Path, nprobes: int) -> dict[str, float]:
    """Milliseconds per question by the clock and of all cores, recall@10 and resident memory of this process."""
    stored = np.load(folder / "questions.npz")
    before = resident_megabytes()
    table = lancedb.connect(folder / "library").open_table(TABLE)
    found: list[set[int]] = []
    milliseconds: list[float] = []
    processor = 0.0
    questions = stored["questions"][: 20 if nprobes == 0 else None]
    for query in np.concatenate([questions, questions]):
        processor -= time.process_time()
        seconds, rows = timed(partial(nearest_rows, table, query, NEIGHBOURS, ["number", "_distance"], nprobes))
        processor += time.process_time()
        milliseconds.append(1000 * seconds)
        found.append(set(rows["number"].to_pylist()))
    warm = milliseconds[len(questions) :]
    answers = stored["answers"][: len(questions)].tolist()
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
        f"index {index:,.0f} MB more, built in {prepared['index_s']:.0f} s.",
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
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(search_all(options.measure, options.nprobes[0])))
        return
    with tempfile.TemporaryDirectory(prefix="marc-search-") as name:
        folder = Path(name)
        prepared = prepare(folder, options.events, options.dimension, options.intrinsic, options.questions)
        searches = {"LanceDB without index": measure(folder, 0)}
        searches |= {f"LanceDB, {nprobes} lists read": measure(folder, nprobes) for nprobes in options.nprobes}
    print(report(options.events, prepared, searches))


if __name__ == "__main__":
    main()
