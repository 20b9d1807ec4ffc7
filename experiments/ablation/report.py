"""What the ablation found, as tables and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.ablation.intervals import Interval, over_seeds_and_videos
from experiments.ablation.plots import TITLES, accuracy_figure, curve_figure, write_picture
from experiments.ablation.settings import ARMS, LAYOUTS, START, Arm
from marc.io import write_text

GROUPS = {
    "attributes": (
        "colour",
        "shape",
        "direction",
        "event story",
        "scene of object",
        "direction of object",
    ),
    "order": ("ordinal", "neighbour", "which first", "precedes", "whole story", "scene list"),
    "counting": ("count scenes", "count objects"),
    "existence": ("exists",),
}
"""Kinds of questions."""


@dataclass(frozen=True)
class Outcome:
    """One arm under one condition."""

    arm: str
    condition: str


class Findings:
    """Outcomes of all arms, seeds and questions.

    Args:
        results: What `experiments.ablation.run.run_ablation` returns.
    """

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.results = results
        self.seeds = len(results["settings"]["seeds"])
        self.videos = len(results["videos"])
        self.kinds = np.array(results["kinds"])
        self.rows: dict[str, list[Mapping[str, Any]]] = {}
        for row in results["arms"]:
            self.rows.setdefault(row["arm"], []).append(row)

    def right(self, outcome: Outcome) -> NDArray[np.float64]:
        """0 or 1 for every question, ``[S, V * Q]``; what was not trained is the same for all seeds."""
        rows = self.rows[outcome.arm]
        right = np.array([[int(value) for value in row["right"][outcome.condition]] for row in rows], dtype=np.float64)
        return np.repeat(right, self.seeds // len(right), axis=0)

    def mean(self, outcome: Outcome, group: str | None = None) -> Interval:
        """Accuracy, over all questions or those of one of `GROUPS`."""
        return self._interval(self.right(outcome), group)

    def difference(self, first: Outcome, second: Outcome, group: str | None = None) -> Interval:
        """How much more the second has right than the first, on the same questions and seeds."""
        return self._interval(self.right(second) - self.right(first), group)

    def _interval(self, values: NDArray[np.float64], group: str | None) -> Interval:
        if group is not None:
            values = np.where(np.isin(self.kinds, GROUPS[group]), values, np.nan)
        return over_seeds_and_videos(values.reshape(len(values), self.videos, -1))

    def amount(self, arm: Arm, name: str) -> float:
        """Mean over seeds of steps, questions or completions, all stages together."""
        return float(np.mean([sum(stage[name] for stage in row["stages"]) for row in self.rows[arm.key]]))


def write_report(results: Mapping[str, Any], output: Path) -> None:
    """Writes ``tables.md``, the same numbers as ``accuracies.png``, and ``curves.png``."""
    findings = Findings(results)
    markdown = "\n".join(tables(findings)) + "\n"
    write_text(output / "tables.md", markdown)
    write_picture(accuracy_figure(markdown), output / "accuracies.png")
    write_picture(curve_figure(findings.rows), output / "curves.png")


def percent(interval: Interval) -> str:
    """Such as ``81.2 [79.0, 83.1]``."""
    return f"{100 * interval.mean:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def points(interval: Interval) -> str:
    """A difference with its sign."""
    return f"{100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table in Markdown."""
    for cells in (header, ["---"] * len(header), *rows):
        yield f"| {' | '.join(cells)} |"
    yield ""


def tables(findings: Findings) -> Iterator[str]:
    """All tables."""
    yield "### Accuracy at one frame's tokens"
    yield ""
    for layout in LAYOUTS:
        yield from layout_table(findings, layout)
    yield "### Full-token skill"
    yield ""
    yield from skill_table(findings)
    yield "### Differences"
    yield ""
    yield from difference_table(findings)
    yield "### By kind of question"
    yield ""
    yield from kind_table(findings)
    yield "### How much an arm saw in its time"
    yield ""
    yield from amount_table(findings)


def students(layout: str) -> list[tuple[str, str]]:
    """Label and key of the arms that are measured at a layout, in the order of the table."""
    own = [(arm.name, arm.key) for arm in ARMS if arm.group == layout]
    others = [(f"{arm.name} at full tokens", arm.key) for arm in ARMS if arm.group == "full"]
    mixed = [(arm.name, arm.key) for arm in ARMS if arm.group == "mixed"]
    return [("training-free", START.key), *others, *own, *mixed]


def layout_table(findings: Findings, layout: str) -> Iterator[str]:
    """Arms at one layout, without retrieval and with it."""
    retrieved = [f"{layout}, k={k}" for k in findings.results["settings"]["retrieved"]]
    header = [TITLES[layout], "whole video", *(f"retrieval, {name.split(', ')[1]}" for name in retrieved)]
    rows = [
        [label, *(percent(findings.mean(Outcome(key, condition))) for condition in (layout, *retrieved))]
        for label, key in students(layout)
    ]
    yield from table(header, rows)


def skill_table(findings: Findings) -> Iterator[str]:
    """Every arm with all tokens, and what it lost."""
    start = Outcome(START.key, "full")
    rows = [["teacher as it is", percent(findings.mean(start)), ""]]
    for arm in ARMS:
        outcome = Outcome(arm.key, "full")
        label = f"{arm.name}, {TITLES[arm.group]}" if arm.group in LAYOUTS else arm.name
        rows.append([label, percent(findings.mean(outcome)), points(findings.difference(start, outcome))])
    yield from table(["arm", "128 tokens", "against the teacher"], rows)


def comparisons() -> Iterator[tuple[str, Outcome, Outcome]]:
    """What is compared with what: a label, the control, the other."""
    teacher, practised = Outcome(START.key, "full"), Outcome("full/practice", "full")
    for layout in LAYOUTS:
        title = TITLES[layout]

        def student(name: str, layout: str = layout) -> Outcome:
            return Outcome(f"{layout}/{name}", layout)

        yield f"{title}: training-free against the teacher", teacher, Outcome(START.key, layout)
        yield f"{title}: SFT against the teacher", teacher, student("SFT")
        yield f"{title}: SFT against the practised teacher", practised, student("SFT")
        yield f"{title}: distillation against the teacher", teacher, student("distillation")
        yield f"{title}: mixed budgets against the teacher", teacher, Outcome("mixed/mixed budgets", layout)
        yield f"{title}: C-GRPO against training-free", Outcome(START.key, layout), student("C-GRPO")
        yield f"{title}: C-GRPO against SFT", student("SFT"), student("C-GRPO")
        yield f"{title}: SFT->C-GRPO against SFT->SFT", student("SFT->SFT"), student("SFT->C-GRPO")
        yield f"{title}: distillation against SFT", student("SFT"), student("distillation")
        yield f"{title}: SFT->distillation against SFT->SFT", student("SFT->SFT"), student("SFT->distillation")
    for arm in ("SFT", "mixed budgets"):
        group = "mixed" if arm == "mixed budgets" else "{}"
        yield (
            f"{arm}: event layout against published merge",
            Outcome(f"{group.format('frames:1')}/{arm}", "frames:1"),
            Outcome(f"{group.format('events')}/{arm}", "events"),
        )


def difference_table(findings: Findings) -> Iterator[str]:
    """Paired differences in points."""
    rows = [[label, points(findings.difference(first, second))] for label, first, second in comparisons()]
    yield from table(["difference in points", "95 % interval"], rows)


def kind_table(findings: Findings) -> Iterator[str]:
    """A few outcomes by kind of question."""
    chosen = {"teacher, 128 tokens": Outcome(START.key, "full")}
    for layout in LAYOUTS:
        chosen[f"training-free, {TITLES[layout]}"] = Outcome(START.key, layout)
        for name in ("SFT", "C-GRPO", "SFT->C-GRPO", "distillation", "SFT->distillation"):
            chosen[f"{name}, {TITLES[layout]}"] = Outcome(f"{layout}/{name}", layout)
        chosen[f"mixed budgets, {TITLES[layout]}"] = Outcome("mixed/mixed budgets", layout)
    counts = {group: int(np.isin(findings.kinds, kinds).sum()) for group, kinds in GROUPS.items()}
    rows = [
        [label, *(f"{100 * findings.mean(outcome, group).mean:.1f}" for group in GROUPS)]
        for label, outcome in chosen.items()
    ]
    yield from table(["arm", *(f"{group} ({counts[group]})" for group in GROUPS)], rows)


def amount_table(findings: Findings) -> Iterator[str]:
    """Steps, questions and sampled answers of every arm."""
    rows = [
        [arm.key, *(f"{findings.amount(arm, name):,.0f}" for name in ("steps", "questions", "completions"))]
        for arm in ARMS
    ]
    yield from table(["arm", "steps", "questions", "sampled answers"], rows)
