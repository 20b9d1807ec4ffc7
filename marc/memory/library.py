"""The events of all remembered videos in one searchable place: what ``marc recall`` asks.

The library is a LanceDB database (embedded, nothing to start; the extra ``library``): a folder, or an address such as ``s3://bucket/memories``.
Every change is one new version of a table that appears whole or not at all; readers keep the version they began with,
and writers in other processes retry. Vectors of different embedding models never meet: each model has its own table.
Small libraries are searched exactly; from `INDEX_FROM` events on `MemoryLibrary.optimize` builds an approximate index.
Recall and speed at 1 million events: docs/memory.md, by ``python -m benchmarks.search_benchmark``.

Shape legend: E events, D embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marc.extras import extra
from marc.memory.store import VideoMemory
from marc.types import Event

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

    from marc.memory.embedder import EventEmbedder

EXTRA = "library"

INDEX_FROM = 50_000
GROWTH = 4
"""Times as many events as an index was built for; then it is built anew, with more lists."""
NPROBES = 64
REFINE = 3
_COLUMNS = ["video", "source", "position", "start", "end", "_distance"]


@dataclass(frozen=True)
class RecalledEvent:
    """One event of one remembered video, with its cosine similarity to the question.

    Attributes:
        source: Path of the video when it was remembered.
        content: SHA-256 of the video file.
        position: Index of the event within its video.
        event: Start and end in seconds.
        score: Cosine similarity, in ``[-1, 1]``.
    """

    source: str
    content: str
    position: int
    event: Event
    score: float


class LibraryError(OSError):
    """The library could not be read or written; what was in it is untouched."""


class MemoryLibrary:
    """Events of many videos, searched together.

    Args:
        address: Folder of the library, made when first written, or an object store address that LanceDB understands.

    Raises:
        LibraryError: The address cannot be opened.
        MissingExtraError: LanceDB is not installed.
    """

    def __init__(self, address: str | Path) -> None:
        with extra(EXTRA):
            import lancedb
        self.address = str(address)
        with self._reported("open"):
            self._database = lancedb.connect(self.address, read_consistency_interval=timedelta(0))

    def add(self, memories: Sequence[VideoMemory]) -> None:
        """Put videos in, in one step for all that share an embedding model.

        What was known of the same contents, or of other contents at the same paths, is replaced; then it is dropped
        where the same weights in another precision had made it.

        Raises:
            LibraryError: It cannot be written, for instance because the disk is full.
        """
        import pyarrow as pa

        by_table: dict[str, dict[str, VideoMemory]] = {}
        for memory in memories:
            name = _table_name(memory.settings.embedder, memory.settings.precision)
            by_table.setdefault(name, {})[memory.content] = memory
        for name, group in by_table.items():
            rows = pa.concat_tables([_rows(memory) for memory in group.values()])
            contents = ", ".join(f"'{content}'" for content in group)
            sources = ", ".join(_quoted(memory.source) for memory in group.values())
            replaced = f"video IN ({contents}) OR source IN ({sources})"
            with self._reported("write"):
                (
                    self._database.create_table(name, schema=rows.schema, exist_ok=True)
                    .merge_insert(["video", "position"])
                    .when_matched_update_all()
                    .when_not_matched_insert_all()
                    .when_not_matched_by_source_delete(replaced)
                    .execute(rows)
                )
                for other in self._tables(name.rpartition("-")[0] + "-"):
                    if other.name != name:
                        other.delete(replaced)

    def remove(self, source: str | Path) -> int:
        """Forget the video of this path under every embedding model; returns the number of dropped events."""
        path = _quoted(str(Path(source).resolve()))
        dropped = 0
        with self._reported("write"):
            for table in self._tables():
                dropped += table.count_rows(f"source = {path}")
                table.delete(f"source = {path}")
        return dropped

    def holds(self, memory: VideoMemory) -> bool:
        """Whether exactly this memory, of this content at this path under these settings, is in the library."""
        table = self._table(memory.settings.embedder, memory.settings.precision)
        if table is None:
            return False
        with self._reported("read"):
            rows = table.search().where(f"video = '{memory.content}'").select(["memory", "source"]).to_arrow()
        known = set(zip(rows["memory"].to_pylist(), rows["source"].to_pylist(), strict=True))
        return known == {(memory.key, memory.source)} and len(rows) == len(memory.events)

    def recall(self, embedder: EventEmbedder, question: str, k: int = 5) -> list[RecalledEvent]:
        """The k events of all videos that are nearest to a question, best first.

        What was remembered with the same weights in another precision is found, too: its vectors differ by rounding.

        Raises:
            ValueError: Nothing has been remembered with this embedder.
            LibraryError: The library cannot be read.
        """
        with self._reported("read"):
            tables = self._tables(_table_name(embedder.identity["fingerprint"], ""))
        if not tables:
            raise ValueError(
                f"{self.address}: nothing was remembered with the embedder {embedder.name}; use `marc remember` first"
            )
        query_D = embedder.embed_question(question).vector
        best: dict[tuple[str, int], RecalledEvent] = {}
        for table in tables:
            for found in self.nearest(table, query_D, k):
                best.setdefault((found.source, found.position), found)
        return sorted(best.values(), key=lambda found: -found.score)[:k]

    def nearest(self, table: Table, query_D: NDArray[np.float32], k: int) -> list[RecalledEvent]:
        """The k nearest events of one table, best first."""
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        with self._reported("read"):
            rows = nearest_rows(table, query_D, k, _COLUMNS).to_pylist()
        return [
            RecalledEvent(
                row["source"], row["video"], row["position"], Event(row["start"], row["end"]), 1 - row["_distance"]
            )
            for row in rows
        ]

    def videos(self) -> dict[str, int]:
        """Paths of the remembered videos with their numbers of events."""
        counts: dict[str, int] = {}
        with self._reported("read"):
            for table in self._tables():
                for source in table.search().select(["source"]).to_arrow()["source"].to_pylist():
                    counts[source] = counts.get(source, 0) + 1
        return dict(sorted(counts.items()))

    def optimize(self) -> None:
        """Compact what many small changes have left, and build or extend the index of large tables."""
        with self._reported("write"):
            for table in self._tables():
                if table.count_rows() >= max(INDEX_FROM, GROWTH * _rows_when_indexed(table)):
                    build_index(table)
                table.optimize()

    def _table(self, fingerprint: str, precision: str) -> Table | None:
        name = _table_name(fingerprint, precision)
        with self._reported("read"):
            return self._database.open_table(name) if name in self._names() else None

    def _tables(self, prefix: str = "") -> list[Table]:
        return [self._database.open_table(name) for name in self._names() if name.startswith(prefix)]

    def _names(self) -> list[str]:
        names, page = [], None
        while page is None or page.page_token:
            page = self._database.list_tables(page_token=page.page_token if page else None)
            names += page.tables
        return names

    @contextmanager
    def _reported(self, action: str) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, OSError) as error:
            raise LibraryError(
                f"cannot {action} the library {self.address}; what it held is untouched. Check space, rights: {error}"
            ) from error


def build_index(table: Table) -> None:
    """Build the approximate index: inverted lists of 8-bit vectors, as many as a quarter of the root of the rows.

    Its name says for how many rows it was built. An older one serves until the new one is there.
    """
    from lancedb.index import IvfSq

    older = [index.name for index in table.list_indices()]
    rows = table.count_rows()
    config = IvfSq(distance_type="cosine", num_partitions=max(1, round(rows**0.5 / 4)))
    name = f"vector_{rows}"
    table.create_index("vector", config=config, name=name, replace=True)
    for other in older:
        if other != name:
            table.drop_index(other)


def _rows_when_indexed(table: Table) -> int:
    numbers = (index.name.rsplit("_", 1)[-1] for index in table.list_indices())
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def nearest_rows(
    table: Table, query_D: NDArray[np.float32], k: int, columns: list[str], nprobes: int = NPROBES
) -> pa.Table:
    """The k nearest rows by cosine, ``_distance = 1 - cosine``.

    Args:
        table: A table with unit vectors in its column ``vector``.
        query_D: A unit vector.
        k: Number of rows.
        columns: Columns to return.
        nprobes: Inverted lists of the index to read, if there is one; what they give is scored again exactly. 0 does
            without the index.
    """
    from lancedb.query import LanceVectorQueryBuilder

    search = table.search(query_D)
    assert isinstance(search, LanceVectorQueryBuilder)
    search = search.distance_type("cosine")
    search = search.nprobes(nprobes).refine_factor(REFINE) if nprobes else search.bypass_vector_index()
    return search.select(columns).limit(k).to_arrow()


def _table_name(fingerprint: str, precision: str) -> str:
    return f"events-{fingerprint[:16]}-{precision}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _rows(memory: VideoMemory) -> pa.Table:
    import pyarrow as pa

    count, dimension = memory.embeddings.shape
    return pa.table(
        {
            "video": pa.array([memory.content] * count),
            "memory": pa.array([memory.key] * count),
            "source": pa.array([memory.source] * count),
            "position": pa.array(range(count), pa.int32()),
            "start": pa.array([event.start for event in memory.events], pa.float64()),
            "end": pa.array([event.end for event in memory.events], pa.float64()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(memory.embeddings.reshape(-1)), dimension),
        }
    )
