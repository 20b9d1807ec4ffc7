from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.long_video import main


def test_the_table_has_a_row_for_every_tenth():
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, ["--hours", "0.04"])
    assert result.exit_code == 0, result.output
    rows = [line.strip("| ").split(" | ") for line in result.output.splitlines() if line.startswith("| 0")]
    assert [float(row[0]) for row in rows] == pytest.approx([0.004 * row for row in range(1, 11)])
    assert all(float(own) > 100 and float(decoder) > 10 for _, own, decoder in rows)
    assert "events, " in result.output.splitlines()[-1]
