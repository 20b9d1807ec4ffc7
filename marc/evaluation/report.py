"""Runs as text, tables and pictures, alone, side by side and in pairs.

``marc eval`` writes a run's ``report.md``, ``report.json`` and ``report.png``; ``marc report RUN...`` puts runs side
by side, in the layout of the paper's main table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from marc.evaluation.plots import plot_summary
from marc.evaluation.runner import read_card
from marc.evaluation.statistics import PairedComparison
from marc.evaluation.summary import DifferentDataError, RunSummary, compare, summarise
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
        f"**{_score(summary)}** ({run['headline']}; lenient reading "
        f"{percent(summary.headline_lenient.mean) or 'none'}; n = {summary.headline.n}, {summary.failed} failed)",
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
    means = {
        "frames (mean)": _number(summary.costs.frames, 1),
        "visual tokens before (mean)": _number(summary.costs.visual_tokens_before, 1),
        "visual tokens after (mean)": _number(summary.costs.visual_tokens_after, 1),
        "prompt tokens of a video before (mean)": _number(summary.costs.prompt_tokens_before, 1),
        "prompt tokens of a video after (mean)": _number(summary.costs.prompt_tokens_after, 1),
        "generated tokens (mean)": _number(summary.costs.generated_tokens, 1),
        "outputs cut at the limit (samples)": str(summary.costs.cut) if summary.costs.cut else "",
        "thought about (share)": percent(summary.costs.thought) and f"{percent(summary.costs.thought)} %",
    }
    for what, value in means.items():
        if value:
            costs.add(what, value)
    costs.add("peak memory (largest)", f"{summary.costs.peak_memory_bytes / 2**30:.2f} GiB")
    for stage, seconds in summary.costs.seconds.items():
        costs.add(f"{stage} (median)", f"{seconds:.4f} s")
    failures = Table("Failures", ("samples", "reason"))
    for reason, count in summary.failures:
        failures.add(str(count), reason)
    return [table for table in (breakdown, costs, failures) if table.rows]


def side_by_side(summaries: Sequence[RunSummary], *, published: bool = False) -> Table:
    """Runs in the layout of the paper's main table: a line per model and method, a column per benchmark, and the mean.

    The mean is that of the published benchmarks where a line has them all, otherwise of those that it has.

    Args:
        summaries: Runs; those of one model, method, protocol and settings share a line.
        published: Also the published lines, marked as such.
    """
    titles = list(dict.fromkeys(summary.card["run"]["benchmark"] for summary in summaries))
    columns = [*(title for title in _published()["columns"] if title in titles or published)]
    columns += [title for title in titles if title not in columns]
    costs = ("visual tokens", "prompt tokens", "peak GiB", "s / question", "n", "failed", "missing")
    table = Table("Scores (strict reading)", ("model", "frames", *columns, "mean", "mean, lenient", *costs))
    if published:
        for row in _published()["rows"]:
            scores = dict(zip(_published()["columns"], row["scores"], strict=True))
            cells = ["" if scores.get(column) is None else f"{scores[column]:.2f}" for column in columns]
            table.add(
                f"{row['model']} (published)", row["frames"], *cells, f"{row['mean']:.2f}", "", *[""] * len(costs)
            )
    for name, line in _lines(summaries):
        runs = list(line.values())
        table.add(
            name,
            _number(_mean(run.costs.frames for run in runs), 0),
            *(_score(line[column]) + _missing(line[column]) if column in line else "" for column in columns),
            _mean_score(line, lambda run: run.headline.mean),
            _mean_score(line, lambda run: run.headline_lenient.mean),
            _number(_mean(run.costs.visual_tokens_after for run in runs), 1),
            _number(_mean(run.costs.prompt_tokens_after for run in runs), 1),
            f"{max(run.costs.peak_memory_bytes for run in runs) / 2**30:.2f}",
            _number(_mean(run.costs.seconds.get("total", math.nan) for run in runs), 3),
            str(sum(run.headline.n for run in runs)),
            str(sum(run.failed for run in runs)),
            str(sum(run.missing for run in runs)),
        )
    return table


def _lines(summaries: Sequence[RunSummary]) -> list[tuple[str, dict[str, RunSummary]]]:
    """Names of lines, and their runs by benchmark; what tells lines of one method apart is in their names."""
    lines: dict[tuple[tuple[str, str, str], frozenset[tuple[str, str]]], dict[str, RunSummary]] = {}
    for summary in summaries:
        run = summary.card["run"]
        settings = _settings(run)
        if run["protocol"] == "official":
            settings.pop("generation.max_new_tokens", None)  # each benchmark's own
        key = (run.get("model", ""), run["method"], run["protocol"])
        line = lines.setdefault((key, frozenset(settings.items())), {})
        if run["benchmark"] in line:
            raise ValueError(
                f"{line[run['benchmark']].folder} and {summary.folder} are both {', '.join(key)}: give one"
            )
        line[run["benchmark"]] = summary
    named = []
    for (key, own), line in lines.items():
        model, method, protocol = key
        others = [dict(settings) for other, settings in lines if other == key]
        named.append((f"{model} {method} ({protocol}){_apart(dict(own), others)}", line))
    return named


def _settings(run: Mapping[str, Any]) -> dict[str, str]:
    """What a card says of how was asked, by name, that of a part as ``part.name``."""
    of_the_run = ("benchmark", "protocol", "method", "model", "samples", "data", "headline", "note")
    left = [(name, value) for name, value in run.items() if name not in of_the_run]
    settings = {}
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            left += [(f"{name}.{part}", each) for part, each in value.items()]
        elif value is not None:
            settings[name] = str(value)
    return settings


def _apart(own: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> str:
    """The settings in which not all are the same, as the end of a name."""
    names = sorted({name for other in others for name, _ in own.items() ^ other.items()})
    return "".join(f", {name} {own.get(name, 'none')}" for name in names)


def _score(summary: RunSummary) -> str:
    """A run's headline, or why there is none."""
    parts = f" in {', '.join(summary.unanswered)}" if summary.headline.n else ""
    return interval(summary.headline) or f"no answer{parts}"


def _missing(summary: RunSummary) -> str:
    return f" ({summary.missing} of {summary.card['run']['samples']} missing)" if summary.missing else ""


def _mean_score(line: Mapping[str, RunSummary], score: Callable[[RunSummary], float]) -> str:
    """A line's mean over benchmarks, of how many where these are not the published ones; none of unfinished runs."""
    if any(run.missing for run in line.values()):
        return ""
    has_published = line.keys() >= set(_published()["columns"])
    averaged = _published()["columns"] if has_published else list(line)
    mean = percent(float(np.mean([score(line[title]) for title in averaged])))
    return mean if has_published or not mean else f"{mean} (of {len(averaged)})"


def _mean(values: Iterable[float]) -> float:
    """Mean of those that are known."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def comparisons(folders: Sequence[Path]) -> Table:
    """Every run against the first run of its benchmark and protocol, sample by sample.

    Raises:
        ValueError: If some are of other data than the first of their benchmark; the message names all of these.
    """
    table = Table(
        "Paired comparisons (difference of headlines on common samples, 95 % interval and sign-flip test over videos)",
        ("benchmark", "run", "against", "difference", "only it right", "only other right", "p", "n", "not in both"),
    )
    first: dict[tuple[str, str], tuple[Path, Mapping[str, Any]]] = {}
    runs = [read_card(folder)["run"] for folder in folders]
    of_one_model = len({run.get("model") for run in runs}) == 1
    pairs = {}
    for folder, run in zip(folders, runs, strict=True):
        base_folder, base = first.setdefault((run["benchmark"], run["protocol"]), (folder, run))
        if base_folder != folder:
            pairs[folder] = base_folder
    compared = _compared(pairs)
    for folder, run in zip(folders, runs, strict=True):
        if folder not in compared:
            continue
        _, base = first[run["benchmark"], run["protocol"]]
        pair, unpaired = compared[folder]
        own, other = (
            (one["method"] if of_one_model else f"{one.get('model')} {one['method']}")
            + _apart(_comparable(one, against), [_comparable(against, one)])
            for one, against in ((run, base), (base, run))
        )
        is_partial = math.isnan(pair.difference.mean) and pair.difference.n > 0
        table.add(
            run["benchmark"],
            own,
            other,
            "a part without common answers" if is_partial else interval(pair.difference, signed=True),
            str(pair.only_second),
            str(pair.only_first),
            "" if math.isnan(pair.p_value) else f"{pair.p_value:.3g}",
            str(pair.difference.n),
            str(unpaired),
        )
    return table


def _compared(pairs: Mapping[Path, Path]) -> dict[Path, tuple[PairedComparison, int]]:
    """Runs compared with those that stand beside them, once it is certain that all can be."""
    compared = {}
    refused: dict[Path, DifferentDataError] = {}
    for folder, base in pairs.items():
        try:
            compared[folder] = compare(base, folder)
        except DifferentDataError as error:
            refused[folder] = error
    if refused:
        raise ValueError(
            f"{'; '.join(map(str, refused.values()))}. Leave out {', '.join(map(str, refused))}: give `marc report` "
            "the folders of the runs to compare, one by one, and report those of other data by themselves"
        )
    return compared


def _comparable(run: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, str]:
    """A run's settings without those that differ because its method or its model is another."""
    of_method = ("compression", "frames", "memory") if run["method"] != other["method"] else ()
    of_model = ("family", "checkpoint", "reading", "compression") if run.get("model") != other.get("model") else ()
    return {name: value for name, value in _settings(run).items() if name.split(".")[0] not in of_method + of_model}


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
