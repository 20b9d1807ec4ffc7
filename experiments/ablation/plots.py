"""Pictures of what the ablation found: its tables as points with their intervals, and the way there as curves.

Nothing is told apart by colour alone: a method has a row or panel of its own, and what shares one its own marker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.ablation.intervals import Interval
from experiments.ablation.settings import ARMS, LAYOUTS, Arm
from marc.extras import extra
from marc.io import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {"frames:1": "published merge", "events": "event layout"}
EVERY = "every token (128)"
UNTRAINED = "not trained"
OTHERWISE = "trained otherwise"
LANE = 0.26
"""Between what stands in one row of a panel, in rows."""
DPI = 160
SCORE = re.compile(r"([-+]?[\d.]+) \[([-+]?[\d.]+), ([-+]?[\d.]+)\]")


@dataclass(frozen=True)
class Look:
    """How one of a few series is drawn; told apart by shape and by brightness as well as by colour."""

    marker: str
    colour: str
    line: str = "-"


LOOKS = (Look("o", "#0072b2"), Look("s", "#e69f00", "--"), Look("^", "#111111", ":"))


def read_tables(markdown: str) -> dict[str, dict[str, dict[str, Interval]]]:
    """The scores of `experiments.ablation.report.tables`, which docs/results.md holds as well.

    Args:
        markdown: Text with tables; what is no score, such as ``99.5 [99.1, 99.9]``, is left out.

    Returns:
        Scores in percent by the table's first heading, row and column.
    """
    tables: dict[str, dict[str, dict[str, Interval]]] = {}
    header: list[str] = []
    for line in markdown.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            header = []
        elif not header:
            header = cells
        else:
            found = zip(header[1:], map(SCORE.fullmatch, cells[1:]), strict=True)
            scores = {column: Interval(*map(float, match.groups())) for column, match in found if match}
            if scores:
                tables.setdefault(header[0], {}).setdefault(cells[0], {}).update(scores)
    return tables


Panel = Mapping[str, Mapping[str, Interval]]
"""Scores by series and row."""


def accuracy_panels(markdown: str) -> dict[str, Panel]:
    """The picture's panels: both layouts at one frame's tokens, with and without retrieval, and all tokens."""
    tables = read_tables(markdown)
    panels: dict[str, Panel] = {}
    for title in TITLES.values():
        rows = tables[title]
        columns = list(next(iter(rows.values())))
        panels[f"{title}, 4 tokens"] = {
            column: {_row(row): scores[column] for row, scores in rows.items()} for column in columns
        }
    panels[EVERY] = _by_training({row: scores["128 tokens"] for row, scores in tables["arm"].items()})
    return panels


def _by_training(scores: Mapping[str, Interval]) -> Panel:
    """Series of arms that were trained at one layout, from rows such as ``SFT, event layout``, and of the others."""
    labels = [*(f"trained at {title}" for title in TITLES.values()), OTHERWISE]
    series: dict[str, dict[str, Interval]] = {label: {} for label in labels}
    for row, score in scores.items():
        name, _, title = row.partition(", ")
        series[f"trained at {title}" if title else OTHERWISE][_row(name)] = score
    return series


def _row(label: str) -> str:
    """One name for what the tables name by its part."""
    if label in ("training-free", "teacher as it is"):
        return UNTRAINED
    return label.removesuffix(" at full tokens").replace("->", " → ")


def accuracy_figure(markdown: str) -> Figure:
    """The tables of accuracy (see `read_tables`): a row for each method, a marker for each condition, bars of 95 %."""
    with extra("plots"):
        from matplotlib.figure import Figure

    panels = accuracy_panels(markdown)
    names = list(dict.fromkeys(row for panel in panels.values() for series in panel.values() for row in series))
    teacher = panels[EVERY][OTHERWISE][UNTRAINED].mean
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    for axes, (title, panel) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        axes.axvline(teacher, color="#777777", linestyle=(0, (4, 3)), linewidth=1, label="teacher, every token")
        _draw_panel(axes, names, panel)
        axes.set_title(title, fontsize=12)
    axes = figure.axes[0]
    axes.set_yticks(range(len(names)), names, fontsize=11)
    axes.set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel("right answers, %, with 95 % intervals; every panel has an axis of its own", fontsize=11)
    return figure


def write_picture(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=DPI))


def _draw_panel(axes: Axes, names: Sequence[str], panel: Panel) -> None:
    beside = {name: [label for label, scores in panel.items() if name in scores] for name in names}
    assert len(panel) <= len(LOOKS), f"{len(panel)} conditions, but only {len(LOOKS)} ways to draw them"
    for look, (label, scores) in zip(LOOKS, panel.items(), strict=False):
        lanes = [beside[name].index(label) - (len(beside[name]) - 1) / 2 for name in scores]
        heights = [names.index(name) + LANE * lane for name, lane in zip(scores, lanes, strict=True)]
        means = [score.mean for score in scores.values()]
        below = [score.mean - score.low for score in scores.values()]
        above = [score.high - score.mean for score in scores.values()]
        axes.errorbar(
            means, heights, xerr=[below, above], fmt=look.marker, color=look.colour, label=label, markersize=6, lw=1.4
        )
    for row in range(1, len(names)):
        axes.axhline(row - 0.5, color="#dddddd", linewidth=0.8, zorder=0)
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(axis="y", length=0)
    axes.legend(fontsize=10, loc="lower center", bbox_to_anchor=(0.5, 1.07), frameon=False, handletextpad=0.4)


Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""What ``results.json`` says of every arm, seed by seed."""


def curve(rows: Sequence[Mapping[str, Any]], budget: str) -> tuple[list[float], list[float]]:
    """Mean over seeds of a curve: processor seconds and accuracies."""
    lines = []
    for row in rows:
        before, line = 0.0, []
        for stage in row["stages"]:
            line += [(before + seconds, values[budget]) for seconds, values in stage["curve"]]
            before += stage["seconds"]
        lines.append(line)
    shortest = min(map(len, lines))
    mean = np.mean([line[:shortest] for line in lines], axis=0)
    return mean[:, 0].tolist(), mean[:, 1].tolist()


def curve_figure(rows: Rows) -> Figure:
    """Validation accuracy over processor time: a column for each method, a row for each budget.

    Args:
        rows: By the key of the arm, see `experiments.ablation.settings.Arm`.
    """
    with extra("plots"):
        from matplotlib.figure import Figure

    budgets, names = (*LAYOUTS, "full"), _columns()
    figure = Figure(figsize=(1.7 * len(names), 7), layout="constrained")
    grid = figure.subplots(len(budgets), len(names), sharex=True, sharey="row", squeeze=False)
    for budget, line in zip(budgets, grid, strict=True):
        for name, axes in zip(names, line, strict=True):
            _draw_curves(axes, rows, name, budget)
        line[0].set_ylabel(f"{TITLES[budget]}, 4 tokens" if budget in TITLES else EVERY, fontsize=10)
    for name, axes in zip(names, grid[-1], strict=True):
        axes.set_xlabel(_row(name), fontsize=11)
    figure.suptitle("validation accuracy in %, over processor seconds of training (grey: the other methods)")
    shown = [axes.get_legend_handles_labels() for axes in grid.flat]
    legend = {label: line for lines, labels in shown for line, label in zip(lines, labels, strict=True)}
    figure.legend(legend.values(), legend, loc="outside lower center", ncols=len(legend), frameon=False)
    return figure


def _columns() -> list[str]:
    """Names of the arms, last those that were not trained at a layout."""
    elsewhere = {arm.name for arm in ARMS if arm.group == "full"}
    return sorted(dict.fromkeys(arm.name for arm in ARMS), key=lambda name: name in elsewhere)


def _draw_curves(axes: Axes, rows: Rows, name: str, budget: str) -> None:
    """One method's curves at a budget, over those of all others in grey."""
    axes.grid(alpha=0.3)
    axes.set_visible(any(arm.name == name for arm in _arms_at(budget)))
    for arm in _arms_at(budget):
        seconds, accuracies = curve(rows[arm.key], budget)
        percent = [100 * accuracy for accuracy in accuracies]
        if arm.name != name:
            axes.plot(seconds, percent, color="#cccccc", linewidth=0.8, zorder=1)
            continue
        look = LOOKS[LAYOUTS.index(arm.group)] if arm.group in LAYOUTS else LOOKS[-1]
        label = f"trained at {TITLES[arm.group]}" if arm.group in LAYOUTS else OTHERWISE
        axes.plot(seconds, percent, look.line, marker=look.marker, color=look.colour, label=label, markersize=4)


def _arms_at(budget: str) -> Iterator[Arm]:
    """The arms whose way was measured at a budget."""
    return (arm for arm in ARMS if arm.group in (budget, "mixed") or budget == "full")
