"""A stratified sample of a large file of rows, as a manifest: which rows, and which files they need.

The paper trains on 5,000 prompts sampled from Video-R1-260k. A sample keeps the file's proportions of kind of input,
problem type and source, so that one knows which few thousand videos to download.

    marc data sample Video-R1-260k.json sample.json --n 5000 --seed 0
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from math import floor
from pathlib import Path
from typing import Any

from marc.data.rows import TrainingRow
from marc.io import sha256_file

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


def manifest(rows: Sequence[TrainingRow], root: str | Path, **about: Any) -> dict[str, Any]:
    """Rows and the distinct files that they need, as JSON.

    Args:
        rows: The rows.
        root: The data set's folder.
        about: What else to record, such as the seed.

    Returns:
        ``about``, ``strata`` (rows of each), ``files`` and ``rows``. A file has its ``path``, the ids of its ``rows``,
        and ``bytes`` and ``sha256``, both null while it is not there.
    """
    users: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.path is not None:
            users[row.path].append(row.problem_id)
    counts = Counter(stratum(row) for row in rows)
    return {
        **about,
        "strata": {" / ".join(name): counts[name] for name in sorted(counts)},
        "files": [{"path": path, "rows": ids, **_fingerprint(Path(root) / path)} for path, ids in users.items()],
        "rows": [row.to_dict() for row in rows],
    }


def read_checksums(path: str | Path) -> dict[str, str]:
    """The SHA-256 of each file that a manifest knows; empty for a plain list of rows."""
    if Path(path).suffix != ".json":
        return {}
    values = json.loads(Path(path).read_text(encoding="utf-8"))
    files = values.get("files", []) if isinstance(values, dict) else []
    return {file["path"]: file["sha256"] for file in files if file["sha256"] is not None}


def _fingerprint(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"bytes": None, "sha256": None}
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
