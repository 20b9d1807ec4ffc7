"""What a run's rows say: means with intervals by benchmark, task and type, costs, failures; two runs in pairs.

Everything is computed from the rows on disk, so an interrupted and resumed run says exactly what an uninterrupted one
does. Failed samples are in no mean; they are counted beside it. Where all samples of a
part of the headline failed, there is no headline.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from marc.evaluation.runner import Row, read_card, read_run_rows
from marc.evaluation.statistics import Estimate, PairedComparison, compare_paired_macro, estimate, estimate_macro


@dataclass(frozen=True)
class Line:
    """One line of the breakdown: the samples with ``group == value``."""

    group: str
    value: str
    strict: Estimate
    lenient: float
    failed: int


@dataclass(frozen=True)
class Costs:
    """What the answers cost, over the answered samples; NaN where there are none.

    Attributes:
        frames: Mean number of frames decoded.
        visual_tokens_before: Mean number of visual tokens without compression.
        visual_tokens_after: Mean number of visual tokens read by the language model.
        prompt_tokens_before: Mean cost of a video in the prompt without compression.
        prompt_tokens_after: Mean cost of a video in the prompt, marks and timestamps included.
        generated_tokens: Mean number of tokens generated, bare answers that did not count among them.
        cut: How many outputs ended because they were as long as they might be.
        thought: Share that the model thought about, of those whose bare answer was asked first; NaN: of none it was.
        peak_memory_bytes: Largest peak memory.
        seconds: Median wall time per sample by stage.
    """

    frames: float
    visual_tokens_before: float
    visual_tokens_after: float
    prompt_tokens_before: float
    prompt_tokens_after: float
    generated_tokens: float
    cut: int
    thought: float
    peak_memory_bytes: int
    seconds: dict[str, float]


class DifferentDataError(ValueError):
    """Two runs that cannot be compared, as they asked different questions under one name.

    Args:
        first: A run's folder.
        second: That of the run that is compared with it.
        sample: Id of a sample whose gold answer differs.
    """

    def __init__(self, first: Path, second: Path, sample: str) -> None:
        super().__init__(f"{first} and {second} are of different data: the gold answer of {sample} differs")


@dataclass(frozen=True)
class RunSummary:
    """Everything a report says about one run.

    Attributes:
        folder: The run's folder.
        card: Its run card.
        headline: The benchmark's headline score, strict reading.
        headline_lenient: The same with lenient reading.
        lines: The breakdown, "all" first.
        costs: What the answers cost.
        failures: Reason and number of samples, most frequent first.
        missing: Samples that have no row yet.
        unanswered: Parts of the headline that were asked and of which all failed: with one there is no headline.
    """

    folder: str
    card: dict[str, Any]
    headline: Estimate
    headline_lenient: Estimate
    lines: tuple[Line, ...]
    costs: Costs
    failures: tuple[tuple[str, int], ...]
    missing: int
    unanswered: tuple[str, ...]

    @property
    def failed(self) -> int:
        """Number of failed samples."""
        return sum(count for _, count in self.failures)


def summarise(folder: Path) -> RunSummary:
    """Reads a run's card and rows.

    Raises:
        ValueError: If the folder is no run, or what is in it is none of one.
    """
    card = read_card(folder)
    rows = read_run_rows(folder)
    answered = [row for row in rows if row["status"] == "ok"]
    spec = card["run"]["headline"]
    return RunSummary(
        folder=str(folder),
        card=card,
        headline=headline(rows, spec, "strict"),
        headline_lenient=headline(rows, spec, "lenient"),
        lines=tuple(_breakdown(rows)),
        costs=_costs(answered),
        failures=tuple(Counter(row["reason"] for row in rows if row["status"] == "failed").most_common()),
        missing=card["run"]["samples"] - len(rows),
        unanswered=tuple(
            "/".join(dict.fromkeys(component))
            for component, part in _parts(rows, spec).items()
            if not any(row["status"] == "ok" for row in part)
        ),
    )


def headline(rows: Sequence[Row], spec: str, score: str) -> Estimate:
    """A benchmark's headline.

    Args:
        rows: All rows: a part of the average of which all failed leaves no headline.
        spec: See `marc.evaluation.benchmarks.ProtocolSpec.headline`.
        score: ``"strict"`` or ``"lenient"``.
    """
    parts = _parts(rows, spec)
    answered = [[row for row in part if row["status"] == "ok"] for part in parts.values()]
    scores = [[row[score] for row in part] for part in answered]
    return estimate_macro(scores, [_videos(part) for part in answered], _weights(parts))


def _parts(rows: Iterable[Row], spec: str) -> dict[tuple[str, ...], list[Row]]:
    """Rows by the mean of a headline that they belong to."""
    parts: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        parts.setdefault(_component(row, spec), []).append(row)
    return parts


def _weights(components: Iterable[tuple[str, ...]]) -> list[float]:
    """What each mean of a headline counts: the parts of a part share what that counts."""
    components = list(components)
    sizes = Counter(component[0] for component in components)
    return [1 / sizes[component[0]] for component in components]


def _component(row: Row, spec: str) -> tuple[str, ...]:
    """Which mean of a headline a row belongs to: a part of the average, and a part of that part if it has some."""
    if spec == "mean":
        return ("all",)
    if spec == "accuracy+mra":
        return ("mra" if row["problem_type"] == "regression" else "accuracy",)
    kind, _, groups = spec.partition(":")
    if kind != "macro":
        raise ValueError(f"no average is called {spec!r}")
    for group in groups.split("/"):
        if group not in row["groups"]:
            raise ValueError(f"the row of {row['id']} has no group {group!r}, over which its benchmark averages")
    return tuple(str(row["groups"][group]) for group in groups.split("/"))


def compare(first: Path, second: Path) -> tuple[PairedComparison, int]:
    """The second run's headline minus the first's on what both answered, and how many samples only one of them did.

    Raises:
        DifferentDataError: If a sample's gold answer differs.
    """
    before, after = ({row["id"]: row for row in read_run_rows(run)} for run in (first, second))
    asked = [key for key in before if key in after]
    for key in asked:
        if before[key]["solution"] != after[key]["solution"]:
            raise DifferentDataError(first, second, key)
    answered = [{key for key, row in run.items() if row["status"] == "ok"} for run in (before, after)]
    both = answered[0] & answered[1]
    parts = _parts((before[key] for key in asked), read_card(first)["run"]["headline"])
    common = [[row for row in part if row["id"] in both] for part in parts.values()]
    pair = compare_paired_macro(
        [[row["strict"] for row in part] for part in common],
        [[after[row["id"]]["strict"] for row in part] for part in common],
        [_videos(part) for part in common],
        _weights(parts),
    )
    return pair, len(answered[0] ^ answered[1])


def _breakdown(rows: Sequence[Row]) -> Iterable[Line]:
    yield _line("all", "", rows)
    groups = list(dict.fromkeys(group for row in rows for group in row["groups"]))
    for group in groups:
        values = sorted({str(row["groups"][group]) for row in rows if group in row["groups"]})
        for value in values:
            yield _line(group, value, [row for row in rows if str(row["groups"].get(group)) == value])


def _line(group: str, value: str, rows: Sequence[Row]) -> Line:
    answered = [row for row in rows if row["status"] == "ok"]
    strict = estimate([row["strict"] for row in answered], _videos(answered))
    lenient = float(np.mean([row["lenient"] for row in answered])) if answered else math.nan
    return Line(group, value, strict, lenient, len(rows) - len(answered))


def _costs(rows: Sequence[Row]) -> Costs:
    def mean(name: str) -> float:
        values = [row.get(name) for row in rows]
        return float(np.mean([math.nan if value is None else value for value in values])) if rows else math.nan

    thought = [row["has_thought"] for row in rows if row.get("has_thought") is not None]
    stages = dict.fromkeys(stage for row in rows for stage in row["seconds"])
    return Costs(
        mean("frames"),
        mean("visual_tokens_before"),
        mean("visual_tokens_after"),
        mean("prompt_tokens_before"),
        mean("prompt_tokens_after"),
        mean("generated_tokens"),
        sum(row.get("is_cut") is True for row in rows),
        float(np.mean(thought)) if thought else math.nan,
        max((row["peak_memory_bytes"] for row in rows), default=0),
        {stage: float(np.median([row["seconds"].get(stage, 0.0) for row in rows])) for stage in stages},
    )


def _videos(rows: Iterable[Row]) -> list[str]:
    return [row["path"] for row in rows]
