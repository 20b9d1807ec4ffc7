"""What hangs is called again, what fails is told, and nothing is waited for without end."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest

from robustness.patience import call_until_it_returns


def hang_at_first(begun: Path) -> None:
    before = len(begun.read_text()) if begun.exists() else 0
    begun.write_text("." * (before + 1))
    if before == 0:
        threading.Event().wait()


def hang() -> None:
    threading.Event().wait()


def fail() -> None:
    raise ValueError("no such thing")


def test_a_call_that_hangs_is_made_again(tmp_path: Path):
    call_until_it_returns(partial(hang_at_first, tmp_path / "begun"), seconds=20)
    assert (tmp_path / "begun").read_text() == ".."


def test_a_call_that_always_hangs_is_given_up():
    with pytest.raises(TimeoutError, match=r"hang did not come back within 0\.5 s, 2 times"):
        call_until_it_returns(partial(hang), seconds=0.5, times=2)


def test_a_call_that_fails_is_told_and_not_made_again():
    with pytest.raises(RuntimeError, match="fail ended with 1"):
        call_until_it_returns(partial(fail))
