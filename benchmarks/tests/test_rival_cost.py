"""What rules cost: a row each, at the budget or what the rule keeps at least; reading the attention is the tower's."""

import pytest
import torch

from benchmarks.rival_cost import Cost, _prefill, main, merging_part
from marc.compression.rivals.rule import RULES


def test_every_rule_has_its_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = "--grids 8 --size 2 4 --width 16 --budget 12 --repeats 1 --tower-width 80"
    monkeypatch.setattr("sys.argv", ["rival_cost", *small.split()])
    main()
    printed = capsys.readouterr().out
    table = [line for line in printed.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    by_name = {row[0]: row for row in rows}
    assert set(RULES) < set(by_name) and {len(row) for row in rows} == {6}
    assert by_name["holitom"][1] == "12" and by_name["holitom"][5] == "yes"
    assert by_name["ours: events"][1] == "12" and by_name["ours: events"][5] == ""
    assert float(by_name["reading the attention"][2]) >= 0


def test_more_tokens_are_a_longer_prefill() -> None:
    assert 0 < _prefill(16) < _prefill(128) < _prefill(4096)


def test_a_tower_that_merges_does_less_the_fewer_cells_it_leaves() -> None:
    parts = [merging_part((4, 8), left, 80) for left in (32, 24, 8, 1)]
    assert parts[0] == 1 and parts == sorted(parts, reverse=True) and 0.4 < parts[-1] < 0.7


def test_memory_is_what_rose_in_between() -> None:
    cost = Cost.of(lambda: torch.zeros(2**24), repeats=1)
    assert cost.bytes is None or 2**25 < cost.bytes < 2**27
    assert cost.seconds >= 0
