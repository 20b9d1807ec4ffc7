"""Three columns for each budget, and how far each contestant is behind or ahead of the best of our layouts."""

from __future__ import annotations

from pathlib import Path

from experiments.rivals.run import Rounds
from experiments.rivals.settings import COLUMNS, RivalSettings
from marc.evaluation.arena.report import reference
from marc.evaluation.statistics import compare_paired, estimate
from marc.evaluation.tables import interval
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
    """A table for each part, in Markdown: accuracy, and the difference from the best of our layouts in brackets."""
    lines, ours = list[str](), reference(settings.contestants)
    for part in settings.parts:
        lines += [f"| at {part}, % | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
        for name in settings.contestants:
            lines.append(f"| {name} | {' | '.join(_cell(rounds, column, name, part, ours) for column in COLUMNS)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(rounds: Rounds, column: str, name: str, part: str, reference: str) -> str:
    right, videos = scores(rounds, column, name, part)
    text = interval(estimate(right, videos), digits=1)
    if name == reference:
        return text
    ours, _ = scores(rounds, column, reference, part)
    return f"{text}; {interval(compare_paired(ours, right, videos).difference, signed=True, digits=1)}"


def write_report(rounds: Rounds, settings: RivalSettings, folder: Path) -> str:
    """Writes ``report.md``, and returns it."""
    text = report(rounds, settings)
    write_text(folder / "report.md", text)
    return text
