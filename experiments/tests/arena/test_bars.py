"""The bars are measured by greedy answers of the model that is given."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments.arena.__main__ import app
from experiments.arena.bars import measure_bars
from experiments.arena.model import build_arena_model
from experiments.arena.settings import CURRICULUM, ArenaPhase, ArenaSettings
from experiments.tiny_model.train import save_model
from marc.world.arena.scenes import ArenaLimits


def test_a_table_by_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(*build_arena_model(ArenaSettings()), tmp_path)
    phase = ArenaPhase(ArenaLimits(events=2, grids=3, rows=4, columns=8), steps=1, videos=1, questions=1)
    answered: list[tuple[int, int]] = []

    def right(backend: object, style: str, shown: list, asked: list) -> list[bool]:
        grids, height, width = shown[0].patches.grid_thw
        kept, whole = len(shown[0].features), grids * height * width // 4
        answered.append((kept, whole))
        return [kept == whole] * len(asked[0])

    monkeypatch.setattr("experiments.arena.bars.answers_right", right)
    table = measure_bars(tmp_path, phase, videos=2, questions=4, seed=0).splitlines()
    assert table[2] == "| all | 8 | 100.0 | 0.0 | 0.0 |" and len(table) > 4
    for (kept, whole), part in zip(answered, (1, 1 / 4, 1 / 32) * 2, strict=True):
        assert kept == round(part * whole)


def test_a_phase_that_does_not_exist_is_refused() -> None:
    result = CliRunner().invoke(app, ["bars", "nowhere", "--phase", str(len(CURRICULUM))])
    assert result.exit_code and f"--phase must be from 0 to {len(CURRICULUM) - 1}, got" in result.output
