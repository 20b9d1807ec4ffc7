"""What the experiment found, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.ablation.intervals import Interval, over_seeds_and_videos
from experiments.ablation.report import percent, points, table
from experiments.reinforcement.settings import ARMS, BUDGET, START
from marc.io import write_text

FULL = "full"
STATS = {
    "samples that reason, first step": "first/rewards/format_reward/mean",
    "groups without variance, first step": "first/groups/zero_variance",
    "groups without variance": "groups/zero_variance",
    "the same, after drawing again": "groups/without_variance_left",
    "gradient norm": "grad_norm",
    "change of an advantage by retention": "retention/advantage_change",
    "groups drawn a step": "groups/drawn",
}
"""What the trainers log, and how it is called in the table."""


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

    def amount(self, arm: str, name: str) -> float:
        """Mean over seeds of what an arm's log says; NaN where it says nothing."""
        values = [{**row["log"], **row["log"]["stats"]}.get(name, np.nan) for row in self.rows[arm]]
        return float(np.mean(values))


def write_report(results: Mapping[str, Any], output: Path) -> None:
    """Writes ``tables.md``."""
    write_text(output / "tables.md", "\n".join(tables(Findings(results))) + "\n")


def tables(findings: Findings) -> Iterator[str]:
    """All tables."""
    names = [START.name, *(arm.name for arm in ARMS)]
    yield "### Accuracy"
    yield ""
    header = ["arm", "one frame's tokens", "every token", "against the start there", "greedy answers that reason"]
    yield from table(
        header,
        [
            [
                name,
                percent(findings.mean(name, BUDGET)),
                percent(findings.mean(name, FULL)),
                points(findings.difference(START.name, name, FULL)),
                f"{100 * np.mean([row['reasons'] for row in findings.rows[name]]):.0f} %",
            ]
            for name in names
        ],
    )
    yield "### Differences at one frame's tokens"
    yield ""
    policies = [arm.name for arm in ARMS if arm.method == "c-grpo"]
    rivals = [arm.name for arm in ARMS if arm.method != "c-grpo"]
    pairs = [(rival, policy) for policy in policies for rival in rivals]
    rows = [[f"{b} against {a}", points(findings.difference(a, b, BUDGET))] for a, b in pairs]
    yield from table(["difference in points", "95 % interval"], rows)
    yield "### What the arms did"
    yield ""
    amounts = [arm.name for arm in ARMS]
    rows = [[name, *(f"{findings.amount(name, key):,.0f}" for key in ("steps", "completions"))] for name in amounts]
    yield from table(["arm", "steps", "sampled answers"], rows)
    sampled = [arm.name for arm in ARMS if arm.method != "sft"]
    rows = [[label, *(_number(findings.amount(name, key)) for name in sampled)] for label, key in STATS.items()]
    yield from table(["mean over the arm", *sampled], rows)


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2g}"
