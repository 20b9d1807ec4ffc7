"""Two checkouts whose commands cost what they are told to cost."""

from pathlib import Path

import pytest

from benchmarks.startup_benchmark import CASES, Case, Checkout, compare, table

SPINNING = """
import sys, time
if "fail" in sys.argv:
    sys.exit("no such command")
end = time.process_time() + {seconds}
while time.process_time() < end:
    pass
"""


def checkout(folder: Path, seconds: float) -> Checkout:
    package = folder / "source" / "marc"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(SPINNING.format(seconds=seconds))
    return Checkout(folder / "source", folder, folder / "bytecode")


def test_processor_seconds_are_compared_case_by_case(tmp_path: Path):
    slow, fast = checkout(tmp_path / "slow", 0.4), checkout(tmp_path / "fast", 0.1)
    cases = (Case(("ask",)), Case(("--help",), ("train", "--help")))
    rows = compare(fast, slow, cases, repeats=2)
    for before, now, ratio in rows:
        assert before.median > 0.4
        assert 0.1 < now.median < before.median
        assert 0.2 < ratio.median < 0.8
    text = table(cases, rows)
    assert text.count("\n") == 3
    assert "| `marc --help (against train --help)` | 0." in text


def test_a_command_that_fails_is_named(tmp_path: Path):
    with pytest.raises(RuntimeError, match="marc fail: no such command"):
        checkout(tmp_path, 0.0).seconds(["fail"])


def test_every_case_is_a_command():
    assert len({str(case) for case in CASES}) == len(CASES)
    assert all(case.command for case in CASES)
