"""Findings from results that were made up so that every number is known."""

import pytest

from experiments.ablation.report import GROUPS, Findings, Outcome, percent, points
from marc.world.questions import KINDS

RESULTS = {
    "settings": {"seeds": [0, 1]},
    "videos": ["a", "b"],
    "kinds": ["colour", "precedes", "colour", "exists"],
    "arms": [
        {"arm": "start", "right": {"full": "1100"}, "stages": []},
        {"arm": "x", "right": {"full": "1110"}, "stages": [{"steps": 3}, {"steps": 1}]},
        {"arm": "x", "right": {"full": "1111"}, "stages": [{"steps": 2}, {"steps": 2}]},
    ],
}
START, TRAINED = Outcome("start", "full"), Outcome("x", "full")


def test_what_was_not_trained_counts_for_every_seed():
    findings = Findings(RESULTS)
    assert findings.mean(START).mean == 0.5 and findings.mean(TRAINED).mean == pytest.approx(7 / 8)
    assert findings.difference(START, TRAINED).mean == pytest.approx(3 / 8)


def test_groups_of_kinds_count_their_own_questions():
    findings = Findings(RESULTS)
    assert findings.mean(TRAINED, "existence").mean == 0.5 and findings.mean(TRAINED, "order").mean == 1
    assert sorted(kind for kinds in GROUPS.values() for kind in kinds) == sorted(KINDS)


def test_numbers_are_written_in_percent_and_points():
    findings = Findings(RESULTS)
    assert percent(findings.mean(START)).startswith("50.0 [") and points(
        findings.difference(START, TRAINED)
    ).startswith("+37.5 [")
