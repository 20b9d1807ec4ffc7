"""Runs as text, tables and pictures, alone, side by side and in pairs.

``marc eval`` writes a run's ``report.md``, ``report.json`` and ``report.png``; ``marc report RUN...`` puts runs side
by side, in the layout of the paper's main table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from marc.evaluation.plots import plot_summary
from marc.evaluation.runner import read_card
from marc.evaluation.summary import RunSummary, compare, summarise
from marc.evaluation.tables import Table, interval, percent
from marc.io import write_json, write_text

REPORT = "report"


def write_report(folder: Path) -> RunSummary:
    """Writes ``report.md``, ``report.json`` and ``report.png`` into a run's folder."""
    summary = summarise(folder)
    write_json(folder / f"{REPORT}.json", _jsonable(asdict(summary)))
    write_text(folder / f"{REPORT}.md", markdown(summary))
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
    costs.add("prompt tokens of a video before (mean)", f"{summary.costs.prompt_tokens_before:.1f}")
    costs.add("prompt tokens of a video after (mean)", f"{summary.costs.prompt_tokens_after:.1f}")
    if not math.isnan(summary.costs.generated_tokens):
        costs.add("generated tokens (mean)", f"{summary.costs.generated_tokens:.1f}")
    if not math.isnan(summary.costs.thought):
        costs.add("thought about (share)", f"{percent(summary.costs.thought)} %")
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
    costs = ("visual tokens", "prompt tokens", "peak GiB", "s / question", "failed")
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
        key = (run.get("model", ""), run["method"], run["protocol"])
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
            f"{np.mean([run.costs.prompt_tokens_after for run in runs]):.1f}",
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
    runs = [read_card(folder)["run"] for folder in folders]
    of_one_model = len({run.get("model") for run in runs}) == 1
    for folder, run in zip(folders, runs, strict=True):
        name = run["method"] if of_one_model else f"{run.get('model')} {run['method']}"
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
