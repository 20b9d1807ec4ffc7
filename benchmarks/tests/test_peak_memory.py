"""The peak of memory that has been given back again is seen, and so is memory that grows from question to question."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import peak_memory
from benchmarks.peak_memory import measure_growth, peak_bytes_above

CPU = torch.device("cpu")
MEGABYTE = 2**20


class Keeper:
    """Keeps so many bytes of every question."""

    def __init__(self, kept_bytes: int) -> None:
        self.kept_bytes = kept_bytes
        self.kept: list[torch.Tensor] = []
        self.calls: list[str] = []

    def forget(self) -> None:
        self.calls.append("forget")

    def ask(self, question: str) -> None:
        self.calls.append("ask")
        self.kept.append(torch.ones(self.kept_bytes, dtype=torch.uint8))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the high-water mark")
def test_a_passing_peak_is_seen():
    kept = torch.ones(64 * MEGABYTE, dtype=torch.uint8)

    def work() -> None:
        passing = torch.ones(96 * MEGABYTE, dtype=torch.uint8)
        del passing
        torch.ones(16 * MEGABYTE, dtype=torch.uint8)

    for _ in range(2):
        risen = peak_bytes_above(work, CPU)
        assert risen == pytest.approx(96 * MEGABYTE, abs=8 * MEGABYTE)
    assert kept.sum() == 64 * MEGABYTE


def test_the_work_is_done_even_where_memory_cannot_be_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(peak_memory, "_PROCESS", tmp_path)
    done = []
    assert peak_bytes_above(lambda: done.append(1), CPU) is None
    assert done == [1]


@pytest.mark.parametrize("kept_bytes", [0, 4 * MEGABYTE])
def test_growth_is_what_the_questions_leave_behind(kept_bytes: int):
    system = Keeper(kept_bytes)
    growth = measure_growth(system, 25, CPU, lambda _: None)
    assert growth.questions == (2, 5, 7, 10, 12, 15, 17, 20, 22, 25)
    if kept_bytes:
        assert growth.after_warm_up > 23 * kept_bytes / 2, growth
    else:
        assert growth.after_warm_up < 4 * MEGABYTE, growth
    assert system.calls == [*(12 * ["forget", "ask", "ask"]), "forget", "ask"], "every other one reads it anew"
