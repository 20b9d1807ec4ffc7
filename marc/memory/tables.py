"""One table of the library: its rows, its indices, and the searches in it.

A row is an event of a video file. Rows are known by content, path and position: two files with the same content have
rows each. `words` holds what is said in the event as `marc.memory.ranking.words_of` reads it, for the index of words.
`tags` are those of the video, `looks` the directions of the event's keyframes, a byte a number, one behind another.

Shape legend: E events, D embedding dimensions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from marc.memory.filters import is_of
from marc.memory.ranking import words_of
from marc.memory.store import VideoMemory
from marc.memory.vectors import are_unit_vectors, highest_cosine

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

logger = logging.getLogger(__name__)

KEY = ["video", "source", "position"]
NPROBES = 64
"""Fewest inverted lists of the index that a question reads."""
SCANNED = 50_000
"""Rows that pass a filter up to which they are compared exactly, without the index of vectors."""
REFINE = 3
JOINED = 1_000_000
"""Rows up to which a video is replaced in one step; ten times as many take 14 GB of memory."""
FULL = 1 << 20
"""Rows of a fragment of a table that Lance does not join to others."""
WORDS_INDEX = "words"
_SHOWN = ["video", "source", "position", "start", "end"]

Row = dict[str, Any]


def rows_of(memory: VideoMemory, texts: Sequence[str], tags: Sequence[str] = ()) -> pa.Table:
    """The rows of a video.

    Args:
        memory: Its memory.
        texts: What is said in each event, ``[E]``.
        tags: Of the video.
    """
    import pyarrow as pa

    count, dimension = memory.embeddings.shape
    looks: list[bytes | None] = [each.tobytes() for each in memory.looks] if memory.looks else [None] * count
    return pa.table(
        {
            "video": pa.array([memory.content] * count),
            "memory": pa.array([memory.key] * count),
            "source": pa.array([memory.source] * count),
            "position": pa.array(range(count), pa.int32()),
            "start": pa.array([event.start for event in memory.events], pa.float64()),
            "end": pa.array([event.end for event in memory.events], pa.float64()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(memory.embeddings.reshape(-1)), dimension),
            "text": pa.array(texts, pa.string()),
            "words": pa.array([" ".join(words_of(text)) for text in texts], pa.string()),
            "tags": pa.array([sorted(set(tags))] * count, pa.list_(pa.string())),
            "looks": pa.array(looks, pa.binary()),
        }
    )


def prepare(table: Table) -> None:
    """Make a table fit for writing: columns and indices that older ones lack."""
    import pyarrow as pa

    later = {"text": pa.string(), "words": pa.string(), "tags": pa.list_(pa.string()), "looks": pa.binary()}
    if missing := [pa.field(name, kind) for name, kind in later.items() if name not in table.schema.names]:
        table.add_columns(missing)
    if not _knows_words(table):
        from lancedb.index import FTS

        as_they_are = FTS(
            base_tokenizer="whitespace",
            lower_case=False,
            stem=False,
            remove_stop_words=False,
            ascii_folding=False,
            max_token_length=None,
        )
        table.create_index("words", config=as_they_are, name=WORDS_INDEX)


def drop_doubled(table: Table) -> None:
    """Leave one row of each event; all rows are looked at.

    Two processes of an older version, or two on an object store, may have written the events of a video twice.
    """
    if doubled := list(_doubled(table)):
        _delete_rows(table, doubled)


def _doubled(table: Table) -> Iterator[int]:
    """Row numbers of all but the last written memory of each file, and of all but its last row of each event."""
    rows = table.search().with_row_id(True).select([*KEY, "memory"]).to_arrow()
    counts = rows.group_by(["source", "position"]).aggregate([("_rowid", "count")])["_rowid_count"]
    memories = rows.group_by("source").aggregate([("memory", "count_distinct")])["memory_count_distinct"]
    if not any((each.to_numpy() > 1).any() for each in (counts, memories)):
        return
    last: dict[str, str] = {}
    seen: set[tuple[str, int]] = set()
    for row in sorted(rows.to_pylist(), key=lambda row: -row["_rowid"]):
        event = row["source"], row["position"]
        if last.setdefault(row["source"], row["memory"]) != row["memory"] or event in seen:
            yield row["_rowid"]
        seen.add(event)


def replace_videos(table: Table, rows: pa.Table) -> None:
    """Put in the rows of some files, in place of all that was known of these files.

    Files of which nothing is known are added, which takes as long in a large table as in a small one. Others are
    replaced in one step, which compares all rows and holds them in memory. In a table of more than `JOINED` rows the
    new rows come first and the old ones go then; whoever reads in between sees both, and a writer that is killed there
    leaves them to `drop_doubled`.
    """
    condition = is_of(rows["source"].to_pylist())
    if not table.count_rows(condition):
        table.add(rows)
    elif table.count_rows() <= JOINED:
        (
            table.merge_insert(KEY)
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .when_not_matched_by_source_delete(condition)
            .execute(rows)
        )
    else:
        old = table.search().where(condition).with_row_id(True).select(["position"]).to_arrow()["_rowid"].to_pylist()
        table.add(rows)
        _delete_rows(table, old)


def _delete_rows(table: Table, numbers: Sequence[int]) -> None:
    """Delete rows by their numbers, which no later row has."""
    table.delete(f"_rowid IN ({', '.join(map(str, numbers))})")


def tags_of(table: Table, sources: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The tags of those of some files that have any."""
    if "tags" not in table.schema.names:
        return {}
    rows = table.search().where(is_of(sources)).select(["source", "tags"]).to_arrow().to_pylist()
    return {row["source"]: tuple(row["tags"]) for row in rows if row["tags"]}


def build_filter_indices(table: Table) -> None:
    """Build the indices of what events are filtered by, as far as there are none."""
    from lancedb.index import BTree, LabelList

    known = {column for index in table.list_indices() for column in index.columns}
    for column in {"source", "video", "start", "end"} - known:
        table.create_index(column, config=BTree())
    if "tags" not in known:
        table.create_index("tags", config=LabelList())


def build_index(table: Table) -> None:
    """Build the approximate index of vectors: inverted lists of 8-bit vectors, a quarter of the root of the rows.

    Its name says for how many rows it was built. An older one serves until the new one is there.
    """
    from lancedb.index import IvfSq

    older = [index.name for index in table.list_indices() if index.columns == ["vector"]]
    rows = table.count_rows()
    config = IvfSq(distance_type="cosine", num_partitions=max(1, round(rows**0.5 / 4)))
    name = f"vector_{rows}"
    table.create_index("vector", config=config, name=name, replace=True)
    for other in older:
        if other != name:
            table.drop_index(other)


def room_to_optimize(table: Table) -> int:
    """Most bytes that compacting and indexing write: fragments that are not full, an index, and what sorts it."""
    known: Any = table.stats()  # a dict, whatever its type says
    size, rows, fragments = known["total_bytes"], known["num_rows"], known["fragment_stats"]
    shares = {share: fragments["lengths"][name] for share, name in ((0.75, "p25"), (0.5, "p50"), (0.25, "p75"))}
    full = max((share for share, length in shares.items() if length >= FULL), default=0.0)
    left = max(0, rows - int(full * fragments["num_fragments"]) * FULL)
    return int(size * (left / max(1, rows) + 0.5))


def rows_when_indexed(table: Table) -> int:
    """For how many rows the index of vectors was built; 0 without one."""
    numbers = (index.name.rsplit("_", 1)[-1] for index in table.list_indices())
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def lists_read(table: Table) -> int:
    """How many inverted lists a question reads: 64 of a million rows, 126 of ten, for a recall@10 above 0.99."""
    return max(NPROBES, round(rows_when_indexed(table) ** 0.3))


def nearest_rows(
    table: Table,
    query_D: NDArray[np.float32],
    k: int,
    columns: list[str],
    *,
    nprobes: int | None = None,
    where: str = "",
) -> pa.Table:
    """The k nearest rows by cosine, ``_distance = 1 - cosine``.

    Args:
        table: A table with unit vectors in its column ``vector``.
        query_D: A unit vector.
        k: Number of rows.
        columns: Columns to return.
        nprobes: Inverted lists of the index to read, if there is one; what they give is scored again exactly, without
            which distances would be LanceDB's own of rounded vectors. 0 does without the index; None: `lists_read`.
        where: An SQL condition on the rows. More lists are read until there are enough rows that meet it; where few
            do, they are all compared.
    """
    from lancedb.query import LanceVectorQueryBuilder

    search = table.search(query_D)
    assert isinstance(search, LanceVectorQueryBuilder)
    search = search.distance_type("cosine")
    if where:
        search = search.where(where, prefilter=True)
    nprobes = lists_read(table) if nprobes is None else nprobes
    if not nprobes or (where and table.count_rows(where) <= SCANNED):
        search = search.bypass_vector_index()
    else:
        search = search.minimum_nprobes(nprobes).maximum_nprobes(0 if where else nprobes).refine_factor(REFINE)
    return search.select(columns).limit(k).to_arrow()


def nearest_events(table: Table, query_D: NDArray[np.float32], k: int, where: str = "") -> list[Row]:
    """Rows of the k nearest different events that meet a condition, nearest first, with their ``cosine``.

    Files with the same content show the same events; of such rows the first is given. Damaged rows are left out.
    """
    columns = _columns(table)
    wanted = k
    while True:
        found = nearest_rows(table, query_D, wanted, [*columns, "vector", "_distance"], where=where)
        rows = [row | {"cosine": 1 - row["_distance"]} for row in _sound(found)]
        events = {event_of(row): row for row in reversed(rows)}
        if len(events) >= k or len(found) < wanted:
            return list(reversed(events.values()))[:k]
        wanted *= 2


def matching_events(
    table: Table, query_D: NDArray[np.float32], words: Sequence[str], k: int, where: str = ""
) -> list[Row]:
    """Rows of the k events whose words match best, with BM25's ``_score`` and ``cosine``; none without an index."""
    if not words or not _knows_words(table):
        return []
    search = table.search(" ".join(words), query_type="fts", fts_columns="words")
    if where:
        search = search.where(where, prefilter=True)
    found = search.select([*_columns(table), "vector", "_score"]).limit(k).to_arrow()
    return [row | {"cosine": float(np.dot(row["vector"], query_D))} for row in _sound(found)]


def _columns(table: Table) -> list[str]:
    """What is shown of events and what they are ranked by, as far as an older table has it."""
    return [name for name in (*_SHOWN, "text", "looks") if name in table.schema.names]


def frame_cosine(row: Row, query_D: NDArray[np.float32]) -> float:
    """The highest cosine of a question with a keyframe of an event; with its vector, where that is higher."""
    if not row.get("looks"):
        return float(row["cosine"])
    looks_KD = np.frombuffer(row["looks"], np.int8).reshape(-1, len(query_D))
    return max(float(row["cosine"]), highest_cosine(query_D, looks_KD))


def _sound(found: pa.Table) -> list[Row]:
    """The rows with a unit vector, an array now; which videos are to be remembered again is logged."""
    rows = found.drop_columns(["vector"]).to_pylist()
    if not rows:
        return []
    numbers = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors_ED = numbers.reshape(len(rows), -1).astype(np.float32, copy=False)
    unit_E = are_unit_vectors(vectors_ED)
    for source in sorted({row["source"] for row, unit in zip(rows, unit_E, strict=True) if not unit}):
        logger.warning(
            "%s: damaged in the library, some of its events are left out; use `marc remember` again", source
        )
    return [row | {"vector": vector} for row, vector, unit in zip(rows, vectors_ED, unit_E, strict=True) if unit]


def event_of(row: Row) -> tuple[str, float, float]:
    """What tells events apart: the content and the times."""
    return row["video"], row["start"], row["end"]


def has_texts(table: Table) -> bool:
    """Whether anything is said in any event."""
    return _knows_words(table) and bool(table.search().where("words != ''").select(["position"]).limit(1).to_list())


def _knows_words(table: Table) -> bool:
    return any(index.name == WORDS_INDEX for index in table.list_indices())
