"""The measurements of watching, on little."""

from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.watch_benchmark import COLUMNS
from benchmarks.watch_benchmark import main as measure_cost
from benchmarks.watch_world import Examiner, report, watch_stream
from marc.memory.embedder import EventEmbedder
from marc.memory.live import LiveMemory
from marc.memory.options import MemoryOptions
from marc.world.streams import sample_stream, scene_ends


def test_a_row_says_what_a_part_of_the_video_cost():
    app = typer.Typer()
    app.command()(measure_cost)
    result = CliRunner().invoke(app, ["--hours", "0.006", "--rows", "1", "--size", "240p", "--ask-every", "8"])
    assert result.exit_code == 0, result.output
    head, _, row, *_ = result.output.splitlines()
    assert head.count("|") == row.count("|") == len(COLUMNS) + 1
    cells = dict(zip(COLUMNS, (cell.strip() for cell in row.strip("|").split("|")), strict=False))
    assert float(cells["x real time, processor"]) > 0.1
    assert float(cells["this process, MB"]) > 100
    assert cells["cuts found"].startswith("1 of")
    assert 0.5 < float(cells["closed after, s: mean"]) < 2


@pytest.fixture
def examiner():
    """Both systems, one of which is always right."""
    asked = Examiner.__new__(Examiner)
    asked.live = SimpleNamespace(ask=lambda memory, question, options: SimpleNamespace(answer=asked.truth))
    asked.recent = SimpleNamespace(
        ask=lambda frames, question, options: SimpleNamespace(answer=f"{len(frames)} frames")
    )
    ask = asked.ask

    def ask_and_know(kind, question, memory, outcome):
        asked.truth = question.answer
        ask(kind, question, memory, outcome)

    asked.ask = ask_and_know
    return asked


def test_both_systems_are_asked_the_same_about_past_and_present(examiner, tmp_path, capsys):
    video = sample_stream("test", 1, 0, 8)
    cutting = MemoryOptions("uniform", 2.0, 20.0, 4.0)
    memory = LiveMemory("world", EventEmbedder.from_pretrained("tiny"), memory=cutting, folder=tmp_path)
    moments = [30.0, 35.3, 41.0]
    outcome = watch_stream(video, moments, examiner, memory)
    memory.close()
    assert all(outcome.right["past, memory"])
    assert not any(outcome.right["past, last four frames"])
    assert len(outcome.right["present, memory"]) == len(outcome.right["present, last four frames"]) > 0
    assert len(outcome.found) == len(scene_ends(video)) - 1
    report([{**vars(outcome), "delays": [1.0]}])
    assert "| past, memory | 100.0 % |" in capsys.readouterr().out
