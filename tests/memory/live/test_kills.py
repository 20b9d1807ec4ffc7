"""A process that watches is killed at any moment: at most two seconds are lost, and it goes on."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from marc.memory.live import StoredWatch

LOST = 2.0
WRITER = Path(__file__).parents[1] / "helpers" / "live_writer.py"


def run_and_kill(folder: Path, seconds: float) -> float:
    """Has a process watch for so long, and kills it; gives the last time that it has said."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(WRITER.parent), *sys.path])}
    with subprocess.Popen(
        [sys.executable, str(WRITER), str(folder)], stdout=subprocess.PIPE, env=environment
    ) as writer:
        assert writer.stdout is not None
        said = writer.stdout.readline()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            said = writer.stdout.readline()
        writer.kill()
        rest = writer.stdout.read().split(b"\n")[:-1]
    return float((rest or [said])[-1])


@pytest.mark.parametrize("seconds", [1.3, 4.1])
def test_a_kill_loses_two_seconds_at_most(tmp_path, seconds):
    watched = StoredWatch
    said = run_and_kill(tmp_path, seconds)
    before = watched(tmp_path / "camera").snapshot()
    assert said - LOST <= before.until <= said
    assert all(len(each.record.pictures()) == len(each.seconds) + 1 for each in before.events)
    said = run_and_kill(tmp_path, seconds)
    after = watched(tmp_path / "camera").snapshot()
    assert after.until >= max(said - LOST, before.until)
    assert [each.span for each in after.events][: len(before.events)] == [each.span for each in before.events]
    ends = [(before.span.end, after.span.start) for before, after in zip(after.events, after.events[1:], strict=False)]
    assert all(end == start for end, start in ends)
