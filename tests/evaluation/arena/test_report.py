"""The arena's tables against numbers that were added up by hand."""

import pytest

from marc.evaluation.arena.options import ArenaOptions
from marc.evaluation.arena.report import report, standings, write_report
from marc.evaluation.arena.rounds import Outcome, Round
from marc.world.options import WorldOptions

OPTIONS = ArenaOptions(WorldOptions(videos=2, questions=2), 1, ("events", "random", "last"), ("1/10",))


def played(index: int, events: str, random: str) -> Round:
    marks = {("full", "1"): (100, "11"), ("events", "1/10"): (10, events), ("random", "1/10"): (10, random)}
    marks["last", "1/10"] = (20, "00")
    outcomes = {key: Outcome(tokens, tuple(mark == "1" for mark in right)) for key, (tokens, right) in marks.items()}
    return Round(0, index, 3, ("colour", "count"), outcomes)


ROUNDS = [played(0, "11", "10"), played(1, "10", "00")]


def test_accuracy_leads_and_costs():
    full, events, random, last = standings(ROUNDS, OPTIONS)
    assert [each.accuracy.mean for each in (full, events, random, last)] == [1, 0.75, 0.25, 0]
    assert events.ahead is None and random.ahead.mean == pytest.approx(-0.5) and random.accuracy.n == 4
    assert (random.ahead.low, random.ahead.high) == (-0.5, -0.5), "both videos say the same"
    assert (events.share, last.share, last.prompt_tokens) == (0.1, 0.2, 20)
    assert random.kinds == {"colour": 0.5, "count": 0.0}


def test_the_report_says_who_took_more_than_was_paid_for(tmp_path):
    text = write_report(standings(ROUNDS, OPTIONS), OPTIONS, tmp_path)
    assert text == report(standings(ROUNDS, OPTIONS), OPTIONS) == (tmp_path / "report.md").read_text()
    lines = text.splitlines()
    assert lines[0] == "Every token, 100 in the prompt: 100.0 [100.0, 100.0] % of 4 questions about 2 videos."
    assert lines[2:7] == [
        "| accuracy, % | 1/10 |",
        "|---|---|",
        "| events | 75.0 [50.0, 100.0] |",
        "| random | 25.0 [0.0, 50.0] |",
        "| last | 0.0 [0.0, 0.0] with 20 |",
    ]
    assert "| random | -50.0 [-50.0, -50.0] |" in lines and "| last | 20.0 |" in lines
    assert (tmp_path / "arena.png").read_bytes().startswith(b"\x89PNG")
