"""What a run of a recipe says: its own bar and figures, and no word of packages that it happens to import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from imports import ROOT
from typer.testing import CliRunner

from marc.cli import app

RUN = {"max_steps": 1, "world_videos": 2, "report_to": "none", "disable_tqdm": False}


def trained(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    recipe = yaml.safe_load((ROOT / "configs" / "sft_world.yaml").read_text())
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**recipe, **RUN, "output_dir": str(folder / "run")}))
    command = [sys.executable, "-m", "marc.cli", "train", "sft", "--config", "recipe.yaml", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_recipe_that_is_not_there_is_named_before_anything_is_imported(method, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "marc.training.run", None)
    result = CliRunner().invoke(app, ["train", method, "--config", str(tmp_path / "gone.yaml")])
    assert result.exit_code == 2
    assert result.stderr == f"marc train {method}: {tmp_path}/gone.yaml: No such file or directory\n"


@pytest.mark.parametrize("options", [[], ["--max_steps", "1"], ["--config=recipe.yaml"]])
@pytest.mark.parametrize("method", ["sft", "grpo", "tower"])
def test_a_run_without_a_recipe_is_refused_before_anything_is_imported(method, options, monkeypatch):
    monkeypatch.setitem(sys.modules, "marc.training.run", None)
    result = CliRunner().invoke(app, ["train", method, *options])
    assert result.exit_code == 2
    assert result.stderr == f"marc train {method}: name a recipe: --config RECIPE (configs/)\n"


@pytest.mark.parametrize("given", ["foo", "[1]", '{"full": "much"}', '{"full": 1'])
def test_shares_that_are_none_are_named_with_their_form(given):
    recipe = str(ROOT / "configs" / "sft_world.yaml")
    result = CliRunner().invoke(app, ["train", "sft", "--config", recipe, "--budgets", given, "--dry_run", "true"])
    form = """budgets must be shares in JSON such as '{"events": 0.5, "full": 0.5}', got """
    assert (result.exit_code, result.stderr) == (2, f"marc train sft: {form}{given!r}\n")


@pytest.mark.parametrize("quiet", [False, True])
def test_a_run_shows_one_bar_or_none_and_no_foreign_warning(quiet: bool, tmp_path: Path):
    result = trained(tmp_path, *(["--quiet"] if quiet else []))
    lines = [line.strip() for line in result.stderr.replace("\r", "\n").splitlines() if line.strip()]
    assert [line for line in lines if not line.endswith("it/s]") and not line.endswith("s/it]")] == []
    assert bool(lines) is not quiet
    assert all(line.startswith("{") for line in result.stdout.splitlines()), result.stdout
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model_type"]
