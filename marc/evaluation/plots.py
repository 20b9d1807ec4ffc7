"""One picture per run: the breakdown as bars with their intervals."""

from __future__ import annotations

import math
from pathlib import Path

from marc.evaluation.summary import RunSummary
from marc.extras import extra
from marc.io import write_atomically

COLOURS = ("#4878a8", "#a9c4de")
"""In turn, so that groups that follow each other can be told apart; each bar has its label."""


def plot_summary(summary: RunSummary, path: Path) -> None:
    """Draws strict scores by group, with 95 % intervals and the number of samples, as a PNG."""
    with extra("eval"):
        from matplotlib.figure import Figure

    lines = [line for line in summary.lines if not math.isnan(line.strict.mean)]
    figure = Figure(figsize=(8, 1.2 + 0.28 * max(1, len(lines))), layout="constrained")
    axes = figure.subplots()
    groups = list(dict.fromkeys(line.group for line in lines))
    for position, line in enumerate(lines):
        score = line.strict
        colour = COLOURS[groups.index(line.group) % len(COLOURS)]
        axes.barh(position, 100 * score.mean, color=colour)
        axes.plot([100 * score.low, 100 * score.high], [position, position], color="black", linewidth=1)
        axes.text(101, position, f"n = {score.n}", va="center", fontsize=7)
    axes.set_yticks(
        range(len(lines)), [f"{line.group}: {line.value}".removesuffix(": ") for line in lines], fontsize=8
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("score, strict reading (95 % interval over videos)")
    run = summary.card["run"]
    axes.set_title(f"{run['benchmark']} · {run['protocol']} · {run['model']} {run['method']}", fontsize=9)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120))
