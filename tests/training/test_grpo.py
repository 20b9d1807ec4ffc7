"""The launcher, its recipes, and the run that they start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from marc.training import grpo

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "configs").glob("grpo_*.yaml"))
TINY_RUN = ["--world_videos", "2", "--world_questions", "2", "--max_steps", "2", "--save_steps", "1"]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_resolve(recipe, capsys, tmp_path):
    small = ["--bf16", "false", "--output_dir", str(tmp_path), "--dry_run", "true"]
    grpo.main(["--config", str(recipe), *small])
    resolved = yaml.safe_load(capsys.readouterr().out)
    for name, value in yaml.safe_load(recipe.read_text()).items():
        assert name in ("bf16", "output_dir", "report_to") or resolved[name] == value, name


def test_the_world_recipe_trains_and_resumes(tmp_path):
    arguments = ["--config", str(ROOT / "configs" / "grpo_world.yaml"), "--output_dir", str(tmp_path), *TINY_RUN]
    grpo.main([*arguments, "--per_device_train_batch_size", "8"])
    assert {"config.yaml", "world", "checkpoint-1", "checkpoint-2"} <= {path.name for path in tmp_path.iterdir()}
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["max_steps"] == 2
    grpo.main([*arguments, "--per_device_train_batch_size", "8", "--resume", "true", "--max_steps", "3"])
    assert (tmp_path / "checkpoint-3").is_dir()


def test_the_launcher_works_from_any_folder(tmp_path):
    result = subprocess.run(
        ["bash", ROOT / "training_script" / "run_grpo_video.sh", "--dry_run", "true"],
        cwd=tmp_path,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=True,
    )
    assert yaml.safe_load(result.stdout)["model"] == "tiny"
    assert "training_script/grpo.py --config" in result.stderr


@pytest.mark.parametrize("options", [["--lora_rank", "-1"], ["--layout", "none"], ["--tau", "-1"]])
def test_wrong_options_are_refused(options, tmp_path):
    with pytest.raises((ValueError, SystemExit)):
        grpo.main(["--output_dir", str(tmp_path), "--bf16", "false", "--dry_run", "true", *options])
