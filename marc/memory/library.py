"""The events of all remembered videos in one searchable place: what ``marc recall`` asks.

The library is a LanceDB database (embedded, nothing to start; the extra ``library``): a folder, or an address such as ``s3://bucket/memories``.
Every change is one new version of a table that appears whole or not at all; readers keep the version they began with,
and in a folder writers wait for each other. Vectors of different embedding models never meet: each has its own table.
Small libraries are searched exactly; from `INDEX_FROM` events on `MemoryLibrary.optimize` builds an approximate index.
Recall and speed at 1 million events: docs/memory.md, by ``python -m benchmarks.search_benchmark``.

Shape legend: E events, D embedding dimensions.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marc.extras import extra
from marc.io import read_json, write_json
from marc.memory.addresses import source_name
from marc.memory.filters import EventFilter, check_tags, is_of
from marc.memory.search import RecalledEvent, Search, best_of, with_files_that_are_there
from marc.memory.store import VideoMemory
from marc.memory.tables import (
    build_filter_indices,
    build_index,
    drop_doubled,
    nearest_events,
    prepare,
    replace_videos,
    room_to_optimize,
    rows_of,
    rows_when_indexed,
    tags_of,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.db import DBConnection
    from lancedb.table import Table

    from marc.memory.embedder import EventEmbedder

EXTRA = "library"

INDEX_FROM = 50_000
GROWTH = 4
"""Times as many events as an index was built for; then it is built anew, with more lists."""
PATIENCE = 600.0
"""Seconds to wait for another process that is writing."""
VERSIONS = ".versions.json"
_MARGIN = 1 << 20
"""Bytes that a write may take besides its rows."""
_SOURCE_PLACE = re.compile(r",?\s*\S*/\.cargo/\S*")
_MACHINE = re.compile(
    r"no space|permission denied|read-only|os error|timed? ?out|file too large|too many open files|connect|"
    r"credential|access denied",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RecalledPage:
    """A part of all events, in the order in which they fit a question.

    Attributes:
        events: At most as many as were asked for.
        number: Which page it is, from 1.
        version: Of the library; further pages of the same version go on where this one ends, whoever writes meanwhile.
        has_more: Whether there is a further page.
    """

    events: tuple[RecalledEvent, ...]
    number: int
    version: str
    has_more: bool


class LibraryError(OSError):
    """The library could not be read or written; what was in it is untouched."""


class MemoryLibrary:
    """Events of many videos, searched together.

    Args:
        address: Folder of the library, made when first written, or an object store address that LanceDB understands.

    Raises:
        MissingExtraError: LanceDB is not installed.
    """

    def __init__(self, address: str | Path) -> None:
        for logger in ("LANCE_LOG", "LANCEDB_LOG"):
            os.environ.setdefault(logger, "error")
        with extra(EXTRA):
            import filelock  # noqa: F401
            import lancedb  # noqa: F401
        self.address = str(address)
        self._folder = None if "://" in self.address else Path(self.address)
        self._is_prepared = False

    def add(
        self,
        memories: Sequence[VideoMemory],
        texts: Sequence[Sequence[str]] | None = None,
        tags: Sequence[str] | None = None,
    ) -> None:
        """Put videos in, in one step for all that share an embedding model.

        What was known of the same paths is replaced; then it is dropped where the same weights in another precision
        had made it. A copy of a video at another path is kept beside it.

        Args:
            memories: Of each video.
            texts: What is said in each event of each video; None for nothing.
            tags: Of all these videos; None leaves each the tags that it has.

        Raises:
            ValueError: A tag is none.
            LibraryError: It cannot be written, for instance because the disk is full.
        """
        import pyarrow as pa

        _check_names(memory.source for memory in memories)
        check_tags(tags or ())
        by_table = _rows_by_table(memories, texts, {memory.source: tags or () for memory in memories})
        with self._writing(2 * sum(rows.nbytes for videos in by_table.values() for rows in videos.values())):
            if tags is None and (known := self._tags(memories)):
                by_table = _rows_by_table(memories, texts, known)
            for name, videos in by_table.items():
                rows = pa.concat_tables(videos.values())
                replace_videos(self._table_for(name, rows.schema), rows)
                for other in self._tables(_of_any_precision(name)):
                    if other.name != name:
                        other.delete(is_of(list(videos)))

    def _tags(self, memories: Sequence[VideoMemory]) -> dict[str, tuple[str, ...]]:
        """The tags that the videos have, by path."""
        sources = [memory.source for memory in memories]
        if not sources or not self._is_there():
            return {}
        with self._reported("read"):
            return {path: tags for table in self._tables() for path, tags in tags_of(table, sources).items()}

    def remove(self, source: str | Path) -> int:
        """Forget the video of this path under every embedding model; returns the number of dropped events.

        Raises:
            ValueError: There is no library.
            LibraryError: It cannot be written.
        """
        self.check_there()
        path = source_name(source)
        _check_names([path])
        condition = is_of([path])
        dropped = 0
        with self._writing():
            for table in self._tables():
                dropped += table.count_rows(condition)
                table.delete(condition)
        return dropped

    def holds(
        self, memory: VideoMemory, texts: Sequence[str] | None = None, tags: Sequence[str] | None = None
    ) -> bool:
        """Whether exactly this is in the library: this content at this path under these settings, with these texts,
        these tags (None: any) and, bit for bit, these vectors.

        Raises:
            LibraryError: The library cannot be read, or cannot hold a file of this name.
        """
        _check_names([memory.source])
        table = self._table(memory.settings.embedder, memory.settings.precision)
        if table is None:
            return False
        with self._reported("read"):
            columns = [name for name in ("memory", "position", "text", "vector", "tags") if name in table.schema.names]
            rows = table.search().where(is_of([memory.source])).select(columns).to_arrow().to_pylist()
        rows.sort(key=lambda row: row["position"])
        if tags is not None and any(set(row.get("tags") or ()) != set(tags) for row in rows):
            return False
        held = [(row["memory"], row["position"], row.get("text") or "") for row in rows]
        wanted = enumerate(texts or [""] * len(memory.events))
        if held != [(memory.key, position, text) for position, text in wanted]:
            return False
        return np.array_equal(np.array([row["vector"] for row in rows], np.float32), memory.embeddings)

    def recall(
        self, embedder: EventEmbedder, question: str, k: int = 5, *, among: EventFilter | None = None
    ) -> list[RecalledEvent]:
        """The k events of all videos that fit a question best, by picture and by what is said, best first.

        What was remembered with the same weights in another precision is found, too: its vectors differ by rounding.

        Args:
            embedder: Of the question; what it remembered is looked at.
            question: What to look for.
            k: How many events.
            among: Which events are looked at; None: all.

        Raises:
            ValueError: There is no library, or nothing in it was remembered with this embedder.
            LibraryError: The library cannot be read.
        """
        return list(self.recall_page(embedder, question, k, among=among).events)

    def recall_page(
        self,
        embedder: EventEmbedder,
        question: str,
        k: int = 5,
        *,
        among: EventFilter | None = None,
        number: int = 1,
        version: str | None = None,
        by_frames: bool = False,
    ) -> RecalledPage:
        """As `recall`, the events from (number - 1) * k on.

        Args:
            embedder: As in `recall`.
            question: As in `recall`.
            k: Events of a page.
            among: As in `recall`.
            number: Which page, from 1.
            version: That of the first page, so that nothing is shown twice or left out when somebody writes between
                two pages; None: the newest.
            by_frames: Order the first hundred by the keyframe that fits best, instead of by their keyframes' mean.

        Raises:
            ValueError: As `recall`; the version is gone; or there is no such page.
            LibraryError: The library cannot be read.
        """
        _check_number(k)
        _check_number(number, "the page's number")
        self.check_there()
        with self._reported("read"):
            tables = self._tables(_table_name(embedder.identity["fingerprint"], ""))
        if not tables:
            raise ValueError(
                f"{self.address}: nothing was remembered with the embedder {embedder.name}; use `marc remember` first"
            )
        version = _checked_out(tables, version)
        query = embedder.embed_question(question)
        with self._reported("read"):
            search = Search(tables, query.vector, query.text, among or EventFilter(), by_frames)
            found = search.ranked(number * k + 1)
        if number > 1 and len(found) <= (number - 1) * k:
            raise ValueError(f"there is no page {number}: the last one is {max(1, -(-len(found) // k))}")
        with self._reported("read"):
            page = found[(number - 1) * k : number * k]
            if not (among and among.videos):
                page = with_files_that_are_there(tables, page)
            return RecalledPage(tuple(page), number, version, len(found) > number * k)

    def nearest(self, table: Table, query_D: NDArray[np.float32], k: int) -> list[RecalledEvent]:
        """The k events of one table with the highest cosines, best first."""
        _check_number(k)
        with self._reported("read"):
            return best_of([], nearest_events(table, query_D, k), query_D)

    def videos(self) -> dict[str, int]:
        """Paths of the remembered videos with their numbers of events.

        Raises:
            ValueError: There is no library.
        """
        self.check_there()
        counts: dict[str, int] = {}
        with self._reported("read"):
            for table in self._tables():
                sources = table.search().select(["source"]).to_arrow()["source"]
                for each in sources.value_counts().to_pylist():
                    counts[each["values"]] = counts.get(each["values"], 0) + each["counts"]
        return dict(sorted(counts.items()))

    def mend(self) -> None:
        """Bring an older library up to date, and mend what writers that were interrupted have left.

        Whatever writes does that first; `holds` says what is true only afterwards.

        Raises:
            LibraryError: It cannot be written.
        """
        if self._is_there():
            with self._writing():
                pass

    def optimize(self) -> None:
        """Compact what many small changes have left, and build or extend the indices of large tables."""
        if not self._is_there():
            return
        with self._reported("read"):
            size = sum(map(room_to_optimize, self._tables()))
        with self._writing(size):
            for table in self._tables():
                rows = table.count_rows()
                if rows >= max(INDEX_FROM, GROWTH * rows_when_indexed(table)):
                    build_index(table)
                if rows >= INDEX_FROM:
                    build_filter_indices(table)
                table.optimize()

    @cached_property
    def _database(self) -> DBConnection:
        import lancedb

        with self._reported("open"):
            return lancedb.connect(self.address, read_consistency_interval=timedelta(0))

    def _is_there(self) -> bool:
        """Whether there may be a library; of an object store only its reading tells."""
        return self._folder is None or self._folder.exists()

    def check_there(self) -> None:
        """Refuses a library that is not there.

        Raises:
            ValueError: Saying what to do.
        """
        if not self._is_there():
            raise ValueError(
                f"{self.address}: there is no library here; use `marc remember` first, or name another (--library)"
            )

    def _table(self, fingerprint: str, precision: str) -> Table | None:
        name = _table_name(fingerprint, precision)
        if not self._is_there():
            return None
        with self._reported("read"):
            return self._opened(name) if name in self._names() else None

    def _table_for(self, name: str, schema: pa.Schema) -> Table:
        table = self._opened(name) if name in self._names() else None
        if table is None:
            table = self._database.create_table(name, schema=schema, exist_ok=True)
            prepare(table)
        return table

    def _tables(self, prefix: str = "") -> list[Table]:
        opened = [self._opened(name) for name in self._names() if name.startswith(prefix)]
        return [table for table in opened if table is not None]

    def _opened(self, name: str) -> Table | None:
        """A table that is listed; None where whoever made it was killed before there was anything in it."""
        try:
            return self._database.open_table(name)
        except ValueError as error:  # what LanceDB says of a folder without any version
            if self._folder is not None and (self._folder / f"{name}.lance" / "data").exists():
                raise OSError(f"{name} has lost its versions; delete it, and remember its videos again") from error
            return None

    def _names(self) -> list[str]:
        names, page = [], None
        while page is None or page.page_token:
            page = self._database.list_tables(page_token=page.page_token if page else None)
            names += page.tables
        return names

    @contextmanager
    def _writing(self, size: int = 0) -> Iterator[None]:
        """Write alone so many bytes at most, in a library that was mended if need be.

        Only a write that came to its end leaves word that nothing needs mending.
        """
        with self._reported("write"), nullcontext() if self._folder is None else _alone_in(self._folder):
            if self._folder is not None:
                _check_room(self._folder, size + _MARGIN)
            is_whole = self._was_left_whole()
            if not (is_whole and self._is_prepared):
                self._prepare(is_whole)
            self._is_prepared = False
            yield
            self._is_prepared = True
            if self._folder is not None:
                self._leave_versions(self._folder)

    def _versions(self) -> dict[str, int]:
        """That of each table."""
        return {table.name: table.version for table in self._tables()}

    def _was_left_whole(self) -> bool:
        """Whether the last writer came to its end; of an object store, where nobody leaves word, this one."""
        if self._folder is None:
            return self._is_prepared
        try:
            left: dict[str, int] = read_json(self._folder / VERSIONS)
        except (OSError, ValueError):
            return False
        return left == self._versions()

    def _leave_versions(self, folder: Path) -> None:
        """Say which versions need no mending; where that cannot be said, the next writer looks."""
        with suppress(OSError):
            write_json(folder / VERSIONS, self._versions())

    def _prepare(self, is_whole: bool) -> None:
        """Mend each table, and see to it that a file is in one of those that differ in precision only.

        All rows are looked at, unless the last writer came to its end.
        """
        tables = self._tables()
        for table in tables:
            prepare(table)
        if is_whole:
            return
        sources: dict[str, list[str]] = {}
        for table in tables:
            drop_doubled(table)
            known = sources.setdefault(_of_any_precision(table.name), [])
            own = table.search().select(["source"]).to_arrow()["source"].unique().to_pylist()
            if twice := sorted(set(own) & set(known)):
                table.delete(is_of(twice))
            known += own

    @contextmanager
    def _reported(self, action: str) -> Iterator[None]:
        try:
            yield
        except LibraryError:
            raise
        except (RuntimeError, OSError, ValueError) as error:
            cause = _cause(error)
            advice = (
                "what it held is untouched; check space and rights"
                if _is_the_machines(error, cause)
                else "it may be damaged: delete it, and `marc remember` its videos again, whose memories are kept"
            )
            raise LibraryError(f"cannot {action} the library {self.address}; {advice}: {cause}") from error


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process writes into a folder, which is made if need be."""
    import filelock

    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".lock", timeout=PATIENCE):
        yield


def _cause(error: Exception) -> str:
    """What LanceDB says, in one line, without the places in its source."""
    text = _SOURCE_PLACE.sub("", " ".join(str(error).split()))
    return text if len(text) <= 300 else text[:297] + "..."


def _is_the_machines(error: Exception, cause: str) -> bool:
    """Whether the disk, the network or the rights are to blame, and not what the files hold."""
    return (isinstance(error, OSError) and error.errno is not None) or bool(_MACHINE.search(cause))


def _check_room(folder: Path, size: int) -> None:
    """Refuse to write where the disk is full: LanceDB takes a file for whole whose last part could not be written.

    Raises:
        OSError: There is no room for so many bytes.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)


def _checked_out(tables: Sequence[Table], version: str | None) -> str:
    """Have all that is read of tables be of one version, whoever writes meanwhile; returns which.

    Raises:
        ValueError: It is gone, or of other tables.
    """
    numbers = [str(table.version) for table in tables] if version is None else version.split(".")
    try:
        for table, number in zip(tables, numbers, strict=True):
            table.checkout(int(number))
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"version {version} of the library is no more, or never was; ask for the first page again"
        ) from error
    return ".".join(numbers)


def _rows_by_table(
    memories: Sequence[VideoMemory], texts: Sequence[Sequence[str]] | None, tags: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, pa.Table]]:
    """The rows of videos by the name of the table that they go to and by their paths."""
    by_table: dict[str, dict[str, pa.Table]] = {}
    for index, memory in enumerate(memories):
        said = texts[index] if texts else [""] * len(memory.events)
        name = _table_name(memory.settings.embedder, memory.settings.precision)
        by_table.setdefault(name, {})[memory.source] = rows_of(memory, said, tags.get(memory.source, ()))
    return by_table


def _check_names(paths: Iterable[str]) -> None:
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise LibraryError(
                f"{path!r}: the library cannot hold a name that is not UTF-8; rename the file"
            ) from error


def _check_number(number: int, name: str = "k") -> None:
    if number < 1:
        raise ValueError(f"{name} must be at least 1, not {number}")


def _table_name(fingerprint: str, precision: str) -> str:
    return f"events-{fingerprint[:16]}-{precision}"


def _of_any_precision(name: str) -> str:
    """What the names of the tables of the same weights begin with."""
    return name.rpartition("-")[0] + "-"
