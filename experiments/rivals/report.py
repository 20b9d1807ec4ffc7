"""Three columns for each budget, and how far each contestant is behind or ahead of the event layout."""

from __future__ import annotations

from pathlib import Path

from experiments.rivals.run import Rounds
from experiments.rivals.settings import COLUMNS, RivalSettings
from marc.evaluation.arena.report import OURS
from marc.evaluation.statistics import Estimate, compare_paired, estimate
from marc.io import write_text

Scores = tuple[list[float], list[tuple[int, int]]]
"""Of each question of each seed of training, and its video: the seeds of one video are one cluster."""


def scores(rounds: Rounds, column: str, contestant: str, part: str) -> Scores:
    """What a contestant scored."""
    right: list[float] = []
    videos: list[tuple[int, int]] = []
    for seed in rounds[column, contestant, part]:  # type: ignore[index]
        for each in seed:
            own = each.outcomes[contestant, part].right
            right += map(float, own)
            videos += [(each.seed, each.index)] * len(own)
    return right, videos


def report(rounds: Rounds, settings: RivalSettings) -> str:
    """A table for each part, in Markdown: accuracy, and the difference from the event layout in brackets."""
    lines: list[str] = []
    for part in settings.parts:
        lines += [f"| at {part}, % | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
        for name in settings.contestants:
            lines.append(f"| {name} | {' | '.join(_cell(rounds, column, name, part) for column in COLUMNS)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(rounds: Rounds, column: str, name: str, part: str) -> str:
    right, videos = scores(rounds, column, name, part)
    text = _percent(estimate(right, videos))
    if name == OURS or (column, OURS, part) not in rounds:
        return text
    ours, _ = scores(rounds, column, OURS, part)
    return f"{text}; {_percent(compare_paired(ours, right, videos).difference, sign='+')}"


def _percent(value: Estimate, sign: str = "") -> str:
    mean, low, high = (f"{100 * each:{sign}.1f}" for each in (value.mean, value.low, value.high))
    return f"{mean} [{low}, {high}]"


def write_report(rounds: Rounds, settings: RivalSettings, folder: Path) -> str:
    """Writes ``report.md``, and returns it."""
    text = report(rounds, settings)
    write_text(folder / "report.md", text)
    return text
