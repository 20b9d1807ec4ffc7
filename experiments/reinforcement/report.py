"""What the experiment found, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.ablation.intervals import Interval, over_seeds_and_videos
from experiments.ablation.report import percent, points, table
from experiments.reinforcement.settings import ARMS, BUDGET, PAPERS, START, VARIANTS
from marc.io import write_text

FULL = "full"
STATS = {
    "samples that reason, first step": "first/rewards/format_reward/mean",
    "groups without variance, first step": "first/groups/zero_variance",
    "groups without variance": "groups/zero_variance",
    "the same, after drawing again": "groups/without_variance_left",
    "groups drawn a step": "groups/drawn",
    "gradient norm": "grad_norm",
    "change of an advantage by retention": "retention/advantage_change",
}
"""What the trainers log, and how it is called in the table."""
OF_SINGLE_CHANGES = {
    "prompts that came up": "last/curriculum/seen",
    "change of an advantage by length": "length/advantage",
    "groups that length tells apart": "length/groups",
    "last probability of events": "last/selection/probability/events",
    "of frames:1": "last/selection/probability/frames:1",
    "of full": "last/selection/probability/full",
    "tokens read": "selection/tokens",
}
"""Likewise, of what only some of the variants have."""


class Findings:
    """Outcomes of all arms, seeds and questions.

    Args:
        results: What `experiments.reinforcement.run.run_reinforcement` returns.
    """

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.videos = list(results["videos"])
        self.rows: dict[str, list[Mapping[str, Any]]] = {}
        for row in results["arms"]:
            self.rows.setdefault(row["arm"], []).append(row)

    def right(self, arm: str, condition: str) -> NDArray[np.float64]:
        """0 or 1 for every question, NaN where a video has fewer: ``[S, V, Q]``."""
        names = list(dict.fromkeys(self.videos))
        most = max(self.videos.count(name) for name in names)
        filled = np.full((len(self.rows[arm]), len(names), most), np.nan)
        for seed, row in enumerate(self.rows[arm]):
            asked = dict.fromkeys(names, 0)
            for name, value in zip(self.videos, row["right"][condition], strict=True):
                filled[seed, names.index(name), asked[name]] = int(value)
                asked[name] += 1
        return filled

    def mean(self, arm: str, condition: str) -> Interval:
        """Accuracy."""
        return over_seeds_and_videos(self.right(arm, condition))

    def difference(self, first: str, second: str, condition: str) -> Interval:
        """How much more the second arm has right than the first, on the same questions and seeds."""
        return over_seeds_and_videos(self.right(second, condition) - self.right(first, condition))

    def about(self, arm: str, name: str) -> float:
        """Mean over seeds of what was measured of an arm's greedy answers."""
        return float(np.mean([row[name] for row in self.rows[arm]]))

    def on_the_way(self, arm: str) -> list[float]:
        """Accuracy on the validation questions at the points between start and end, mean over seeds."""
        curves = [[found[BUDGET] for _, found in row["log"]["curve"]] for row in self.rows[arm]]
        return [float(np.mean(values)) for values in zip(*curves, strict=False)][1:-1]

    def amount(self, arm: str, name: str) -> float:
        """Mean over seeds of what an arm's log says; NaN where it says nothing."""
        values = [{**row["log"], **row["log"]["stats"]}.get(name, np.nan) for row in self.rows[arm]]
        return float(np.mean(values))


def write_report(results: Mapping[str, Any], output: Path) -> None:
    """Writes ``tables.md``."""
    write_text(output / "tables.md", "\n".join(tables(Findings(results))) + "\n")


def tables(findings: Findings) -> Iterator[str]:
    """All tables."""
    known = {arm.name: arm for arm in (START, *ARMS, *VARIANTS)}
    arms = [known[name] for name in findings.rows]
    yield "### Accuracy"
    yield ""
    header = ["arm", "one frame's tokens", "every token", "against the start there", "greedy answers that reason"]
    yield from table(
        [*header, "their tokens"],
        [
            [
                arm.name,
                percent(findings.mean(arm.name, BUDGET)),
                percent(findings.mean(arm.name, FULL)),
                points(findings.difference(START.name, arm.name, FULL)),
                f"{100 * findings.about(arm.name, 'reasons'):.0f} %",
                f"{findings.about(arm.name, 'tokens'):.1f}",
            ]
            for arm in arms
        ],
    )
    yield "### Differences at one frame's tokens"
    yield ""
    policies = [arm.name for arm in arms if arm.method == "c-grpo"]
    rivals = [arm.name for arm in arms if arm.method != "c-grpo" and arm is not START]
    rivals += [name for name in policies if name == PAPERS]
    rows = [[name, *(_difference(findings, rival, name) for rival in rivals)] for name in policies]
    yield from table(["points", *(f"against {rival}" for rival in rivals)], rows)
    yield "### What the arms did"
    yield ""
    trained = [arm for arm in arms if arm is not START]
    rows = [
        [
            arm.name,
            *(f"{findings.amount(arm.name, key):,.0f}" for key in ("steps", "completions")),
            ", ".join(f"{100 * value:.1f}" for value in findings.on_the_way(arm.name)),
        ]
        for arm in trained
    ]
    yield from table(["arm", "steps", "sampled answers", "validation questions right on the way"], rows)
    for stats in (STATS, OF_SINGLE_CHANGES):
        yield from _stats(findings, [arm.name for arm in trained if arm.method != "sft"], stats)


def _difference(findings: Findings, rival: str, name: str) -> str:
    return "" if rival == name else points(findings.difference(rival, name, BUDGET))


def _stats(findings: Findings, names: Sequence[str], stats: Mapping[str, str]) -> Iterator[str]:
    """What arms logged of some numbers; arms without any of them are left out, and so is a table without arms."""
    values = {name: [findings.amount(name, key) for key in stats.values()] for name in names}
    rows = [[name, *map(_number, some)] for name, some in values.items() if not np.isnan(some).all()]
    if rows:
        yield from table(["mean over the arm", *stats], rows)


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2g}"
