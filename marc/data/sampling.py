"""A stratified sample of a large file of rows, as a manifest: which rows, and which files they need.

The paper trains on 5,000 prompts sampled from Video-R1-260k. A sample keeps the file's proportions of kind of input,
problem type and source, so that one knows which few thousand videos to download.

    marc data sample Video-R1-260k.json sample.json --n 5000 --seed 0
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import floor
from pathlib import Path
from typing import IO, Any

from marc.data.row_files import is_manifest
from marc.data.rows import TrainingRow
from marc.io import read_json, sha256_file, write_atomically

Stratum = tuple[str, str, str]


def stratum(row: TrainingRow) -> Stratum:
    """What a sample keeps the proportions of: kind of input, problem type, source."""
    return row.data_type, row.problem_type, row.data_source


def sample_rows(rows: Sequence[TrainingRow], n: int, seed: int) -> list[TrainingRow]:
    """Draws rows without replacement; every stratum gets its share, rounded by the largest remainder.

    Args:
        rows: To draw from.
        n: How many.
        seed: Another seed is another sample.

    Returns:
        ``n`` rows in the order of ``rows``.

    Raises:
        ValueError: If there are fewer than ``n`` rows.
    """
    if not 0 < n <= len(rows):
        raise ValueError(f"cannot sample {n} of {len(rows)} rows; choose 1 <= n <= {len(rows)}")
    members: dict[Stratum, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        members[stratum(row)].append(index)
    names = sorted(members)
    exact = {name: n * len(members[name]) / len(rows) for name in names}
    counts = {name: floor(exact[name]) for name in names}
    by_remainder = sorted(names, key=lambda name: (counts[name] - exact[name], name))
    for name in by_remainder[: n - sum(counts.values())]:
        counts[name] += 1
    rng = random.Random(seed)
    chosen = [index for name in names for index in rng.sample(members[name], counts[name])]
    return [rows[index] for index in sorted(chosen)]


def manifest_head(
    rows: Iterable[TrainingRow], root: str | Path, checksums: Mapping[str, str] | None = None, **about: Any
) -> dict[str, Any]:
    """What a manifest says before its rows.

    Args:
        rows: The rows.
        root: The data set's folder.
        checksums: SHA-256 of files that is known, by their path; others are read for it.
        about: What else to record, such as the seed.

    Returns:
        ``about``, ``strata`` (rows of each) and ``files``. A file has its ``path``, the ids of its ``rows``, and
        ``bytes`` and ``sha256``, both null while it is not there.
    """
    known = checksums or {}
    users: dict[str, list[str]] = defaultdict(list)
    counts: Counter[Stratum] = Counter()
    for row in rows:
        counts[stratum(row)] += 1
        if row.path is not None:
            users[row.path].append(row.problem_id)
    return {
        **about,
        "strata": {" / ".join(name): counts[name] for name in sorted(counts)},
        "files": [
            {"path": path, "rows": ids, **_fingerprint(Path(root) / path, known.get(path))}
            for path, ids in users.items()
        ],
    }


def write_manifest(
    output: str | Path,
    rows: Callable[[], Iterable[TrainingRow]],
    root: str | Path,
    checksums: Mapping[str, str] | None = None,
    **about: Any,
) -> dict[str, Any]:
    """Writes a manifest, a row a line: what `manifest_head` gives, and ``rows``.

    Args:
        output: File to write.
        rows: Gives the rows, twice: they need not be in memory.
        root: The data set's folder.
        checksums: See `manifest_head`.
        about: What else to record.

    Returns:
        The head.
    """
    head = manifest_head(rows(), root, checksums, **about)

    def write(file: IO[bytes]) -> None:
        file.write(_json(head, indent=1).removesuffix(b"\n}") + b',\n "rows": [')
        for number, row in enumerate(rows()):
            file.write((b",\n  " if number else b"\n  ") + _json(row.to_dict()))
        file.write(b"\n ]\n}\n")

    write_atomically(output, write)
    return head


def _json(value: Any, indent: int | None = None) -> bytes:
    return json.dumps(value, indent=indent, ensure_ascii=False).encode(errors="backslashreplace")


def read_checksums(path: str | Path) -> dict[str, str]:
    """The SHA-256 of each file that a manifest knows; empty for a plain list of rows.

    Raises:
        ValueError: If it is no manifest; the message names the file.
    """
    if not is_manifest(Path(path)):
        return {}
    files = read_json(path).get("files", [])
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise ValueError(f"{path}: the 'files' of a manifest must be a list of objects")
    known = [(file.get("path"), file.get("sha256")) for file in files if file.get("sha256") is not None]
    if not all(isinstance(text, str) for pair in known for text in pair):
        raise ValueError(f"{path}: a file of a manifest has a 'path' and a 'sha256', both texts")
    return dict(known)


def _fingerprint(path: Path, checksum: str | None) -> dict[str, Any]:
    if not os.path.isfile(path):  # which also says so of names that no file can have
        return {"bytes": None, "sha256": None}
    return {"bytes": path.stat().st_size, "sha256": checksum or sha256_file(path)}
