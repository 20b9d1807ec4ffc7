"""What a run's rows say: means with intervals by benchmark, task and type, costs, failures; runs side by side and in
pairs.

Everything is computed from the rows on disk, so an interrupted and resumed run reports exactly what an uninterrupted
one does. Failed samples are in no mean; they are counted beside it. ``marc eval`` writes a run's ``report.md``,
``report.json`` and ``report.png``; ``marc report RUN...`` puts runs side by side, in the layout of the paper's main
table.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from marc.evaluation.runner import CARD, Row, read_run_rows, write_atomically
from marc.evaluation.statistics import Estimate, PairedComparison, compare_paired, estimate, estimate_macro
from marc.evaluation.tables import Table, interval, percent

REPORT = "report"


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
    """What the answers cost, over the answered samples.

    Attributes:
        frames: Mean number of frames decoded.
        visual_tokens_before: Mean number of visual tokens without compression.
        visual_tokens_after: Mean number of visual tokens read by the language model.
        peak_memory_bytes: Largest peak memory.
        seconds: Median wall time per sample by stage.
    """

    frames: float
    visual_tokens_before: float
    visual_tokens_after: float
    peak_memory_bytes: int
    seconds: dict[str, float]


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
    """

    folder: str
    card: dict[str, Any]
    headline: Estimate
    headline_lenient: Estimate
    lines: tuple[Line, ...]
    costs: Costs
    failures: tuple[tuple[str, int], ...]
    missing: int

    @property
    def failed(self) -> int:
        """Number of failed samples."""
        return sum(count for _, count in self.failures)


def summarise(folder: Path) -> RunSummary:
    """Reads a run's card and rows.

    Raises:
        ValueError: If the folder is no run.
    """
    if not (folder / CARD).is_file():
        raise ValueError(f"{folder} is not a run: it has no {CARD}")
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    rows = read_run_rows(folder)
    answered = [row for row in rows if row["status"] == "ok"]
    spec = card["run"]["headline"]
    return RunSummary(
        folder=str(folder),
        card=card,
        headline=headline(answered, spec, "strict"),
        headline_lenient=headline(answered, spec, "lenient"),
        lines=tuple(_breakdown(rows)),
        costs=_costs(answered),
        failures=tuple(Counter(row["reason"] for row in rows if row["status"] == "failed").most_common()),
        missing=card["run"]["samples"] - len(rows),
    )


def headline(rows: Sequence[Row], spec: str, score: str) -> Estimate:
    """A benchmark's headline.

    Args:
        rows: Answered rows.
        spec: See `marc.evaluation.benchmarks.ProtocolSpec.headline`.
        score: ``"strict"`` or ``"lenient"``.
    """
    key: Callable[[Row], str]
    if spec == "mean":
        key = _all
    elif spec == "accuracy+mra":
        key = _accuracy_or_mra
    else:
        group = spec.removeprefix("macro:")

        def key(row: Row) -> str:
            return str(row["groups"][group])

    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(key(row), []).append(row)
    return estimate_macro(
        [[row[score] for row in part] for part in parts.values()], [_videos(part) for part in parts.values()]
    )


def compare(first: Path, second: Path) -> tuple[PairedComparison, int]:
    """The second run against the first on the samples that both answered, and how many only one of them did.

    Raises:
        ValueError: If a sample's gold answer differs: then the runs are of different data.
    """
    before, after = (
        {row["id"]: row for row in read_run_rows(run) if row["status"] == "ok"} for run in (first, second)
    )
    common = [key for key in before if key in after]
    for key in common:
        if before[key]["solution"] != after[key]["solution"]:
            raise ValueError(f"{first} and {second} are of different data: the gold answer of {key} differs")
    pair = compare_paired(
        [before[key]["strict"] for key in common],
        [after[key]["strict"] for key in common],
        _videos([before[key] for key in common]),
    )
    return pair, len(before.keys() ^ after.keys())


def write_report(folder: Path) -> RunSummary:
    """Writes ``report.md``, ``report.json`` and ``report.png`` into a run's folder."""
    from marc.evaluation.plots import plot_summary

    summary = summarise(folder)
    write_atomically(folder / f"{REPORT}.json", json.dumps(_jsonable(asdict(summary)), indent=2) + "\n")
    write_atomically(folder / f"{REPORT}.md", markdown(summary))
    plot_summary(summary, folder / f"{REPORT}.png")
    return summary


def markdown(summary: RunSummary) -> str:
    """A run's report as Markdown."""
    run = summary.card["run"]
    parts = [
        f"# {run['benchmark']}, {run['protocol']} protocol, {run['method']}",
        f"**{interval(summary.headline)}** ({run['headline']}; lenient reading "
        f"{percent(summary.headline_lenient.mean)}; n = {summary.headline.n}, {summary.failed} failed)",
    ]
    if run.get("note"):
        parts.append(run["note"])
    if summary.missing:
        parts.append(f"**Incomplete: {summary.missing} of {run['samples']} samples have no row yet.**")
    parts += [table.markdown() for table in tables(summary)]
    parts.append("Run card:\n\n```json\n" + json.dumps(summary.card, indent=2) + "\n```")
    return "\n\n".join(parts) + "\n"


def tables(summary: RunSummary) -> list[Table]:
    """A run's breakdown, costs and failures as tables."""
    breakdown = Table(
        "Scores (mean, 95 % interval over videos)", ("group", "value", "strict", "lenient", "n", "failed")
    )
    for line in summary.lines:
        score, failed = line.strict, str(line.failed) if line.failed else ""
        breakdown.add(line.group, line.value, interval(score), percent(line.lenient), str(score.n), failed)
    costs = Table("Costs per sample", ("what", "value"))
    costs.add("frames (mean)", f"{summary.costs.frames:.1f}")
    costs.add("visual tokens before (mean)", f"{summary.costs.visual_tokens_before:.1f}")
    costs.add("visual tokens after (mean)", f"{summary.costs.visual_tokens_after:.1f}")
    costs.add("peak memory (largest)", f"{summary.costs.peak_memory_bytes / 2**30:.2f} GiB")
    for stage, seconds in summary.costs.seconds.items():
        costs.add(f"{stage} (median)", f"{seconds:.4f} s")
    failures = Table("Failures", ("samples", "reason"))
    for reason, count in summary.failures:
        failures.add(str(count), reason)
    return [table for table in (breakdown, costs, failures) if table.rows]


def side_by_side(summaries: Sequence[RunSummary], *, published: bool = False) -> Table:
    """Runs in the layout of the paper's main table: a line per model and method, a column per benchmark, and the mean.

    Args:
        summaries: Runs; those of one model, method and protocol share a line.
        published: Also the published lines, marked as such.
    """
    titles = list(dict.fromkeys(summary.card["run"]["benchmark"] for summary in summaries))
    columns = [*(title for title in _published()["columns"] if title in titles or published)]
    columns += [title for title in titles if title not in columns]
    costs = ("visual tokens", "peak GiB", "s / question", "failed")
    table = Table("Scores (strict reading)", ("model", "frames", *columns, "mean", "mean, lenient", *costs))
    if published:
        for row in _published()["rows"]:
            scores = dict(zip(_published()["columns"], row["scores"], strict=True))
            cells = ["" if scores.get(column) is None else f"{scores[column]:.2f}" for column in columns]
            table.add(
                f"{row['model']} (published)", row["frames"], *cells, f"{row['mean']:.2f}", "", *[""] * len(costs)
            )
    lines: dict[tuple[str, ...], dict[str, RunSummary]] = {}
    for summary in summaries:
        run = summary.card["run"]
        key = (run["model"], run["method"], run["protocol"])
        line = lines.setdefault(key, {})
        if run["benchmark"] in line:
            raise ValueError(
                f"{line[run['benchmark']].folder} and {summary.folder} are both {', '.join(key)}: give one"
            )
        line[run["benchmark"]] = summary
    for (model, method, protocol), line in lines.items():
        runs = list(line.values())
        complete = len(line) == len(columns)
        table.add(
            f"{model} {method} ({protocol})",
            f"{np.mean([run.costs.frames for run in runs]):.0f}",
            *(interval(line[column].headline) if column in line else "" for column in columns),
            percent(float(np.mean([run.headline.mean for run in runs]))) if complete else "",
            percent(float(np.mean([run.headline_lenient.mean for run in runs]))) if complete else "",
            f"{np.mean([run.costs.visual_tokens_after for run in runs]):.1f}",
            f"{max(run.costs.peak_memory_bytes for run in runs) / 2**30:.2f}",
            f"{np.mean([run.costs.seconds.get('total', math.nan) for run in runs]):.3f}",
            str(sum(run.failed for run in runs)),
        )
    return table


def comparisons(folders: Sequence[Path]) -> Table:
    """Every run against the first run of its benchmark and protocol, sample by sample."""
    table = Table(
        "Paired comparisons (difference of means on common samples, 95 % interval over videos, exact McNemar test)",
        ("benchmark", "run", "against", "difference", "only it right", "only other right", "p", "n", "not in both"),
    )
    first: dict[tuple[str, str], tuple[Path, str]] = {}
    runs = [json.loads((folder / CARD).read_text(encoding="utf-8"))["run"] for folder in folders]
    of_one_model = len({run["model"] for run in runs}) == 1
    for folder, run in zip(folders, runs, strict=True):
        name = run["method"] if of_one_model else f"{run['model']} {run['method']}"
        base, base_name = first.setdefault((run["benchmark"], run["protocol"]), (folder, name))
        if base == folder:
            continue
        pair, unpaired = compare(base, folder)
        table.add(
            run["benchmark"],
            name,
            base_name,
            interval(pair.difference, signed=True),
            str(pair.only_second),
            str(pair.only_first),
            f"{pair.p_value:.3g}",
            str(pair.difference.n),
            str(unpaired),
        )
    return table


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
        return float(np.mean([row[name] for row in rows])) if rows else 0.0

    stages = dict.fromkeys(stage for row in rows for stage in row["seconds"])
    return Costs(
        mean("frames"),
        mean("visual_tokens_before"),
        mean("visual_tokens_after"),
        max((row["peak_memory_bytes"] for row in rows), default=0),
        {stage: float(np.median([row["seconds"].get(stage, 0.0) for row in rows])) for stage in stages},
    )


def _all(row: Row) -> str:
    return "all"


def _accuracy_or_mra(row: Row) -> str:
    return "mra" if row["problem_type"] == "regression" else "accuracy"


def _videos(rows: Iterable[Row]) -> list[str]:
    return [row["path"] for row in rows]


def _jsonable(value: Any) -> Any:
    """NaN has no place in JSON: it becomes null."""
    if isinstance(value, dict):
        return {key: _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


@cache
def _published() -> dict[str, Any]:
    text = files("marc.evaluation").joinpath("published.json").read_text(encoding="utf-8")
    published: dict[str, Any] = json.loads(text)
    return published
