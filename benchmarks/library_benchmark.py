"""What the steps of `marc remember`, `marc recall` and `marc forget` cost in a library of many events.

    python -m benchmarks.library_benchmark --events 1000000
    python -m benchmarks.library_benchmark --events 10000000 --dimension 256 --at-a-time 21000 --folder FOLDER

fills a library with made-up videos of 50 events (`benchmarks.search_benchmark`), gives one of ten tags to those that
are put in together, and words to the first event of one video in a hundred, and prints the tables of docs/memory.md.
The embedding of the question is not in it. Recall@10 is that of `marc.memory.tables.nearest_rows` against cosines in
float64 among the 100 best in float32. With ``--folder`` everything is kept there, and a run that was killed goes on
with the step in which it was.

Shape legend: E events of a video, N all events, Q questions, C candidates, D embedding dimensions.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peak_memory import peak_bytes_above
from benchmarks.search_benchmark import (
    BLOCK,
    CANDIDATES,
    EVENT_SECONDS,
    EVENTS_PER_VIDEO,
    NEIGHBOURS,
    event_vectors,
    unit,
)
from marc.io import read_json, write_json
from marc.memory.embedder import EventEmbedder
from marc.memory.filters import EventFilter
from marc.memory.library import VERSIONS, MemoryLibrary
from marc.memory.store import MemorySettings, VideoMemory
from marc.memory.tables import nearest_rows
from marc.types import Event

SETTINGS = MemorySettings("1", "a" * 64, "fp32", "uniform", "", 1.0, 20.0, 4.0, 160)
INTRINSIC = 32
TAGS = 10
QUESTION = "Where does it rain?"
REPEATS = 5
FILL = "fill it"
FILTERS = {
    "all": EventFilter(),
    "a tenth of the videos": EventFilter(tags=("3",)),
    "one video": EventFilter(videos=("/videos/7.mp4",)),
    "half of each video": EventFilter(after=EVENT_SECONDS * EVENTS_PER_VIDEO / 2),
}
Step = tuple[str, Callable[[], object]]


@dataclass(frozen=True)
class Corpus:
    """Made-up videos.

    Attributes:
        events: How many events there are in all.
        dimension: Of their vectors.
        at_a_time: Videos that are put in together.
    """

    events: int
    dimension: int
    at_a_time: int

    def vectors(self) -> Iterator[NDArray[np.float32]]:
        """Those of the events, those of the videos that are put in together in one array ``[<= at_a_time * E, D]``."""
        blocks = event_vectors(self.events, self.dimension, INTRINSIC)
        while block := list(islice(blocks, self.at_a_time * EVENTS_PER_VIDEO // BLOCK)):
            yield np.concatenate(block)

    @property
    def parts(self) -> int:
        """In how many steps they are put in."""
        return -(-self.events // (self.at_a_time * EVENTS_PER_VIDEO))


class Asker:
    """Stands in for an embedder: its question is a given vector."""

    name = "asker"

    def __init__(self, vector_D: NDArray[np.float32]) -> None:
        self.identity = {"fingerprint": SETTINGS.embedder, "precision": SETTINGS.precision}
        self._vector_D = vector_D

    def embed_question(self, question: str) -> Any:
        """See `EventEmbedder.embed_question`."""
        return SimpleNamespace(vector=self._vector_D, text=question)


def video(number: int, vectors_ED: NDArray[np.float32]) -> VideoMemory:
    """The memory of a made-up video."""
    events = tuple(Event(EVENT_SECONDS * index, EVENT_SECONDS * (index + 1)) for index in range(len(vectors_ED)))
    thumbnails = (b"",) * len(events)
    return VideoMemory(f"/videos/{number}.mp4", f"{number:064x}", events, vectors_ED, thumbnails, SETTINGS, {})


def put_in(library: MemoryLibrary, corpus: Corpus, part: int, vectors_ND: NDArray[np.float32]) -> None:
    """Put a part of the videos in, in one step with one tag."""
    starts = range(0, len(vectors_ND), EVENTS_PER_VIDEO)
    first = part * corpus.at_a_time
    memories = [
        video(first + index, vectors_ND[start : start + EVENTS_PER_VIDEO]) for index, start in enumerate(starts)
    ]
    library.add(memories, [_said_in(memory) for memory in memories], tags=[str(part % TAGS)])


def _said_in(memory: VideoMemory) -> list[str]:
    first = "it rains" if memory.source.endswith("00.mp4") else ""
    return [first, *[""] * (len(memory.events) - 1)]


def steps(library: MemoryLibrary, corpus: Corpus) -> Iterator[Step]:
    """What is measured, in its order, once the library is filled."""
    rng = np.random.default_rng(9)
    new = video(corpus.events, unit(rng.standard_normal((EVENTS_PER_VIDEO, corpus.dimension), dtype=np.float32)))
    asker = cast(EventEmbedder, Asker(new.embeddings[3]))

    def recalled(**options: Any) -> Callable[[], object]:
        return lambda: library.recall_page(asker, QUESTION, 5, **options)

    yield "look whether it needs mending", lambda: MemoryLibrary(library.address).mend()
    yield "look through all of it", lambda: look_through(library)
    yield "build the indices", library.optimize
    yield "know that a video is not in it", lambda: library.holds(new)
    yield "put it in", lambda: library.add([new], tags=["new"])
    yield "know that it is in", lambda: library.holds(new, tags=["new"])
    yield "replace it", lambda: library.add([new], tags=["newer"])
    yield "first question", recalled()
    yield "question", recalled()
    for name, among in FILTERS.items():
        yield f"question: {name}", recalled(among=among)
    yield "its page 200", recalled(number=200)
    yield "forget it", lambda: library.remove(new.source)
    yield "compact", library.optimize


def look_through(library: MemoryLibrary) -> None:
    """Mend a library whose last writer may have been interrupted."""
    (Path(library.address) / VERSIONS).unlink(missing_ok=True)
    MemoryLibrary(library.address).mend()


def questions_about(corpus: Corpus, count: int) -> NDArray[np.float32]:
    """Unit vectors ``[Q, D]``, each near the vector of an event, in the order of the events."""
    rng = np.random.default_rng(1)
    chosen = np.sort(rng.integers(corpus.events, size=count))
    near, start = [], 0
    for block in event_vectors(corpus.events, corpus.dimension, INTRINSIC):
        near.append(block[chosen[(chosen >= start) & (chosen < start + len(block))] - start])
        start += len(block)
    noise_QD = rng.standard_normal((count, corpus.dimension), dtype=np.float32) / np.float32(corpus.dimension**0.5)
    return unit(np.concatenate(near) + 0.5 * noise_QD)


def passing(corpus: Corpus, numbers_N: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Which of some events pass each filter."""
    videos, positions = numbers_N // EVENTS_PER_VIDEO, numbers_N % EVENTS_PER_VIDEO
    return {
        "all": numbers_N >= 0,
        "a tenth of the videos": videos // corpus.at_a_time % TAGS == 3,
        "one video": videos == 7,
        "half of each video": (positions + 1) * EVENT_SECONDS > EVENT_SECONDS * EVENTS_PER_VIDEO / 2,
    }


def exact_neighbours(corpus: Corpus, questions_QD: NDArray[np.float32]) -> dict[str, NDArray[np.int64]]:
    """Of each filter the numbers ``[Q, 10]`` of the events that are nearest to each question, without keeping all."""
    count = len(questions_QD)
    best = {name: (np.full((count, 1), -2.0), np.full((count, 1), -1)) for name in FILTERS}
    start = 0
    for block_ND in event_vectors(corpus.events, corpus.dimension, INTRINSIC):
        numbers_N = np.arange(start, start + len(block_ND))
        scores_QN = questions_QD @ block_ND.T
        for name, passes_N in passing(corpus, numbers_N).items():
            if passes_N.any():
                found = _candidates(block_ND[passes_N], numbers_N[passes_N], scores_QN[:, passes_N], questions_QD)
                best[name] = _best_of(best[name], found)
        start += len(block_ND)
    return {name: numbers_QC[:, :NEIGHBOURS] for name, (_, numbers_QC) in best.items()}


Scored = tuple[NDArray[np.float64], NDArray[np.int64]]


def _candidates(
    vectors_ND: NDArray[np.float32],
    numbers_N: NDArray[np.int64],
    scores_QN: NDArray[np.float32],
    questions_QD: NDArray[np.float32],
) -> Scored:
    """Cosines in float64 and numbers ``[Q, C]`` of those that are best in float32."""
    best_QC = np.argpartition(-scores_QN, min(CANDIDATES, len(numbers_N)) - 1, axis=1)[:, :CANDIDATES]
    exact_QC = np.empty(best_QC.shape)
    for index, (best_C, question_D) in enumerate(zip(best_QC, questions_QD, strict=True)):
        exact_QC[index] = vectors_ND[best_C].astype(np.float64) @ question_D.astype(np.float64)
    return exact_QC, numbers_N[best_QC]


def _best_of(known: Scored, found: Scored) -> Scored:
    """The 10 best of both, best first."""
    cosines_QC, numbers_QC = (np.concatenate(both, axis=1) for both in zip(known, found, strict=True))
    order_QC = np.argsort(-cosines_QC, axis=1)[:, :NEIGHBOURS]
    return np.take_along_axis(cosines_QC, order_QC, axis=1), np.take_along_axis(numbers_QC, order_QC, axis=1)


def recall_of(
    library: MemoryLibrary, corpus: Corpus, name: str, questions_QD: NDArray[np.float32], nearest_QC: NDArray[np.int64]
) -> float:
    """Share of the events that are nearest that are found among as many."""
    (table,) = library._tables()
    where = FILTERS[name].condition(table.schema.names)
    hits = 0
    for question_D, nearest_C in zip(questions_QD, nearest_QC, strict=True):
        rows = nearest_rows(
            table, question_D, NEIGHBOURS, ["source", "position", "_distance"], where=where
        ).to_pylist()
        found = {int(Path(row["source"]).stem) * EVENTS_PER_VIDEO + row["position"] for row in rows}
        hits += len(found & set(nearest_C.tolist()))
    return hits / nearest_QC.size


class Notes:
    """What was measured, in a file, so that a run that was killed goes on."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "measured.json"
        self.measured: dict[str, dict[str, float]] = read_json(self._file) if self._file.exists() else {}

    def measure(self, step: str, work: Callable[[], object]) -> None:
        """Median seconds of a step by the clock and of all cores, and the memory that it took; what was done is not
        done again. Questions are asked several times.
        """
        if step in self.measured:
            return
        times: list[tuple[float, float]] = []

        def timed() -> None:
            for _ in range(REPEATS if step.startswith("question") else 1):
                clock, processor = time.perf_counter(), time.process_time()
                work()
                times.append((time.perf_counter() - clock, time.process_time() - processor))

        peak = peak_bytes_above(timed, torch.device("cpu")) or 0
        by_clock, by_processor = np.median(times, axis=0).tolist()
        self.note(step, {"clock": by_clock, "processor": by_processor, "peak": peak / 1e6})

    def note(self, step: str, figures: dict[str, float]) -> None:
        """Keep the figures of a step."""
        self.measured[step] = figures
        write_json(self._file, self.measured)


def measure_filling(library: MemoryLibrary, corpus: Corpus, notes: Notes) -> None:
    """Put all videos in; those parts that are in already are left."""
    if all(f"{FILL}, {part}" in notes.measured for part in range(corpus.parts)):
        return
    for part, vectors_ND in enumerate(corpus.vectors()):
        notes.measure(f"{FILL}, {part}", partial(put_in, library, corpus, part, vectors_ND))


def measure_recall(library: MemoryLibrary, corpus: Corpus, folder: Path, notes: Notes, count: int) -> None:
    """Recall@10 of each filter."""
    file = folder / "exact.npz"
    if not file.exists():
        questions_QD = questions_about(corpus, count)
        answers = np.stack(list(exact_neighbours(corpus, questions_QD).values()))
        np.savez(file.with_suffix(".part.npz"), questions=questions_QD, answers=answers)
        file.with_suffix(".part.npz").rename(file)
    with np.load(file) as stored:
        for index, name in enumerate(FILTERS):
            if (step := f"recall: {name}") not in notes.measured:
                share = recall_of(library, corpus, name, stored["questions"], stored["answers"][index])
                notes.note(step, {"recall": share, "questions": count})


def report(corpus: Corpus, measured: dict[str, dict[str, float]]) -> str:
    """The tables of docs/memory.md."""
    filling = [figures for step, figures in measured.items() if step.startswith(FILL)]
    whole = {name: sum(part[name] for part in filling) for name in ("clock", "processor")}
    shown = {FILL: whole | {"peak": max(part["peak"] for part in filling)}}
    shown |= {step: figures for step, figures in measured.items() if "clock" in figures and not step.startswith(FILL)}
    lines = [f"{corpus.events:,} events of {corpus.dimension} dimensions", ""]
    lines += ["| step | clock s | processor s | memory MB |", "|---|---|---|---|"]
    for step, each in shown.items():
        lines.append(f"| {step} | {each['clock']:.3f} | {each['processor']:.3f} | {each['peak']:,.0f} |")
    lines += ["", "| looked at | recall@10 |", "|---|---|"]
    recalls = {step: figures for step, figures in measured.items() if "recall" in figures}
    lines += [f"| {step.removeprefix('recall: ')} | {figures['recall']:.4f} |" for step, figures in recalls.items()]
    return "\n".join(lines)


def main() -> None:
    """Entry point of ``python -m benchmarks.library_benchmark``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512, help="of the embeddings; 512 is PE-Core-T's")
    parser.add_argument("--at-a-time", type=int, default=1000, help="videos that are put in together, in thousands")
    parser.add_argument("--questions", type=int, default=300, help="for recall@10")
    parser.add_argument("--folder", type=Path, help="keep everything here, and go on with what is there")
    options = parser.parse_args()
    corpus = Corpus(options.events, options.dimension, options.at_a_time)
    with tempfile.TemporaryDirectory(prefix="marc-library-") as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        library, notes = MemoryLibrary(folder / "library"), Notes(folder)
        measure_filling(library, corpus, notes)
        for step, work in steps(library, corpus):
            notes.measure(step, work)
        measure_recall(library, corpus, folder, notes, options.questions)
    print(report(corpus, notes.measured))


if __name__ == "__main__":
    main()
