"""``marc world`` from the command line: what is measured is what was asked for, and no export covers another."""

import pytest
from typer.testing import CliRunner

from marc.cli import app

SMALL = ["world", "measure", "--layout", "events", "--videos", "2", "--questions", "12"]


def accuracy(*options: str) -> float:
    result = CliRunner().invoke(app, [*SMALL, *options])
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.stdout.splitlines() if line.split()[1:2] == ["all"])
    return float(line.split()[5])


def test_merging_inside_the_tower_is_measured():
    """The embedded model's tower was not trained for it, which costs right answers."""
    assert accuracy("--tower-layer", "1") < accuracy() == accuracy("--tower-layer", "none")


@pytest.mark.parametrize("layer", ["2", "9"])
def test_there_must_be_such_a_block(layer):
    result = CliRunner().invoke(app, [*SMALL, "--tower-layer", layer])
    assert result.exit_code and f"tower_layer {layer} is not inside the vision tower of 2 blocks" in result.output


def test_any_budget_is_measured_and_what_it_cost_is_told():
    result = CliRunner().invoke(app, [*SMALL, "--layout", "auto:1", "--layout", "tokens:6", "--layout", "random:1"])
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.stdout.splitlines() if "│ visual tokens" in line)
    events, auto, six, random, other = map(float, line.strip(" │").split("│")[2:])
    assert events == other == random == 4 and six == 6 and 1 <= auto <= 4
    told = [line for line in result.stdout.splitlines() if " points at " in line]
    assert [line.split(":")[0] for line in told] == ["auto", "tokens", "random"]
    assert f"at {auto / events:.2f} of the visual tokens against events" in told[0] and "at 1.50 of" in told[1]
    result = CliRunner().invoke(app, [*SMALL, "--layout", "some"])
    assert result.exit_code and "unknown budget 'some'" in result.output


def test_an_export_may_be_repeated_and_one_of_another_seed_is_refused(tmp_path):
    command = ["world", "export", str(tmp_path), "--videos", "1", "--questions", "2", "--scale", "1"]
    for _ in range(2):
        result = CliRunner().invoke(app, command)
        assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'eval_world.json'}\n"), result.output
    refused = CliRunner().invoke(app, [*command, "--seed", "1"])
    advice = "holds an export of seed 0, not 1; export to another folder, or delete this one"
    assert (refused.exit_code, refused.stderr) == (2, f"marc world export: {tmp_path}: {advice}\n")
