"""The launchers, their recipes, and the runs that they start."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from transformers import TrainingArguments
from typer.testing import CliRunner

from marc.cli import app
from marc.training import run as launch
from marc.training.run import run_grpo, run_sft, run_tower

ROOT = Path(__file__).resolve().parents[2]
MAINS = {"grpo": run_grpo, "distill": run_grpo, "sft": run_sft, "tower": run_tower}
RECIPES = sorted(path for kind in MAINS for path in (ROOT / "configs").glob(f"{kind}_*.yaml"))
TINY_RUN = ["--world_videos", "2", "--world_questions", "2", "--max_steps", "2", "--save_steps", "1"]
SMALL_BATCH = {kind: ["--per_device_train_batch_size", "8" if kind == "grpo" else "1"] for kind in MAINS}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_resolve(recipe, capsys, tmp_path):
    small = ["--bf16", "false", "--output_dir", str(tmp_path), "--dry_run", "true"]
    MAINS[recipe.stem.partition("_")[0]](["--config", str(recipe), *small])
    resolved = yaml.safe_load(capsys.readouterr().out)
    for name, value in yaml.safe_load(recipe.read_text()).items():
        assert name in ("bf16", "output_dir", "report_to") or resolved[name] == value, name


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_of_a_kind_differ_in_their_model_alone(recipe):
    kind, *name, weights = recipe.stem.split("_")
    if name:
        own, other = (yaml.safe_load(path.read_text()) for path in (recipe, recipe.with_stem(f"{kind}_3b_{weights}")))
        assert own["output_dir"] == f"runs/{recipe.stem}" and recipe.read_text().count(f"{recipe.stem}") == 2
        assert name[-1] in own["model"].lower() and name[0].removesuffix("vl") in own["model"].lower()
        assert {**own, "model": 0, "output_dir": 0} == {**other, "model": 0, "output_dir": 0}


@pytest.mark.parametrize("kind", ["grpo", "sft", "tower"])
def test_the_world_recipe_trains_and_resumes(kind, tmp_path):
    recipe = ROOT / "configs" / f"{kind}_world.yaml"
    arguments = ["--config", str(recipe), "--output_dir", str(tmp_path), *TINY_RUN, *SMALL_BATCH[kind]]
    MAINS[kind](arguments)
    assert {"config.yaml", "checkpoint-1", "checkpoint-2"} <= {path.name for path in tmp_path.iterdir()}
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["max_steps"] == 2
    MAINS[kind]([*arguments, "--resume", "true", "--max_steps", "3"])
    state = json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())
    assert state["global_step"] == 3


def test_another_run_in_the_output_folder_is_refused(tmp_path):
    recipe = ["--config", str(ROOT / "configs" / "sft_world.yaml"), "--output_dir", str(tmp_path)]
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / "checkpoint-7" / "trainer_state.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds checkpoint-7 of an earlier run: --resume true"):
        run_sft(recipe)
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize(("before", "after"), [(None, "0"), ("2,3", "2"), ("", "")])
def test_a_process_by_itself_sees_one_gpu(monkeypatch, before, after):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "" if before is None else before)
    if before is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    launch._take_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == after
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    launch._take_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_half_precision_needs_float32_weights_somewhere(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    alone = TrainingArguments("unused", use_cpu=True)
    with pytest.raises(ValueError, match=r"dtype: bfloat16 without DeepSpeed"):
        launch.load_policy(launch.RunOptions(dtype="bfloat16"), alone)
    dtypes = [launch.load_policy(launch.RunOptions(lora_rank=rank), alone)[0].dtype for rank in (0, 4)]
    assert dtypes == [torch.float32, torch.bfloat16]


def test_attention_is_what_is_installed(monkeypatch):
    for installed, name in ((True, "flash_attention_2"), (False, "sdpa")):
        monkeypatch.setattr(launch, "is_flash_attn_2_available", lambda installed=installed: installed)
        assert launch._attention("auto", "bfloat16") == name
        assert launch._attention("auto", "float32") == "sdpa"
    assert launch._attention("eager", "bfloat16") == "eager"


def test_several_machines_need_an_address(tmp_path):
    result = subprocess.run(
        ["bash", ROOT / "training_script" / "run_sft_video.sh"],
        env={**{k: v for k, v in os.environ.items() if k != "MASTER_ADDR"}, "PYTHON": "true", "NNODES": "2"},
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0 and "MASTER_ADDR" in result.stderr


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
    named = result.stderr.splitlines()[0].removeprefix("recipe: ")
    assert Path(named).samefile(ROOT / "configs" / "grpo_world.yaml")


def test_the_launcher_starts_several_processes(tmp_path):
    """Which command it would run; ``true`` stands in for Python."""
    recipe = tmp_path / "recipe.yaml"
    result = subprocess.run(
        ["bash", ROOT / "training_script" / "run_sft_video.sh", "--learning_rate", "1e-5"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHON": "true",
            "NGPU": "8",
            "NNODES": "2",
            "NODE_RANK": "1",
            "MASTER_ADDR": "10.0.0.1",
            "DEEPSPEED": "zero2",
            "CONFIG": str(recipe),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    command = result.stderr.split()
    assert command[1:11] == [
        *("-m", "torch.distributed.run", "--nproc_per_node", "8", "--nnodes", "2"),
        *("--node_rank", "1", "--master_addr", "10.0.0.1"),
    ]
    assert command[command.index("--config") - 1] == str(ROOT / "training_script" / "sft_video.py")
    assert command[command.index("--config") + 1] == str(recipe)
    assert command[command.index("--deepspeed") + 1] == str(ROOT / "configs" / "deepspeed" / "zero2.json")
    assert command[-2:] == ["--learning_rate", "1e-5"]


@pytest.mark.parametrize(
    ("environment", "expected"), [({}, "--standalone"), ({"MASTER_PORT": "29501"}, "--master_port 29501")]
)
def test_the_launcher_takes_any_free_port_of_one_machine(environment, expected, tmp_path):
    result = subprocess.run(
        ["bash", ROOT / "training_script" / "run_sft_video.sh"],
        cwd=tmp_path,
        env={
            **{k: v for k, v in os.environ.items() if k != "MASTER_PORT"},
            "PYTHON": "true",
            "NGPU": "2",
            **environment,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert expected in result.stderr
    assert ("--master_port" in result.stderr) == bool(environment)


@pytest.mark.parametrize("kind", ["grpo", "sft", "tower"])
@pytest.mark.parametrize(
    "options", [["--lora_rank", "-1"], ["--layout", "none"], ["--budgets", '{"frame": 1}'], ["--no_such_option", "1"]]
)
def test_wrong_options_are_refused(kind, options, tmp_path):
    with pytest.raises((ValueError, SystemExit)):
        MAINS[kind](["--output_dir", str(tmp_path), "--bf16", "false", "--dry_run", "true", *options])


@pytest.mark.parametrize("kind", ["grpo", "sft", "tower"])
def test_the_command_prints_what_it_would_do(kind, tmp_path):
    recipe = ROOT / "configs" / f"{kind}_world.yaml"
    budgets = '{"events": 1.0}'
    arguments = ["train", kind, "--config", str(recipe), "--output_dir", str(tmp_path), "--dry_run", "true"]
    result = CliRunner().invoke(app, [*arguments, "--budgets", budgets])
    assert result.exit_code == 0, result.output
    assert yaml.safe_load(result.stdout)["budgets"] == json.loads(budgets)


RECORDS = """
bf16: false
layout: frames
target_frames: 2
tower_layer: {4: 16, 8: 4}
duplicates: none
ratio: 0.25
window: none
merge: weighted
tower_chunk: 4096
decoder: decord
min_pixels: 3136
video_timeout: 5
world_level: hard
attn_implementation: eager
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECORDS + f"output_dir: {tmp_path / 'run'}\n")
    return str(path)


def test_recipes_have_every_option_of_the_records(recipe):
    options, config = launch.read_options(launch.RunOptions, launch.CGRPOConfig, ["--config", recipe])
    assert options.compression == {
        "layout": "frames",
        "target_frames": 2,
        "ratio": 0.25,
        "window": None,
        "merge": "weighted",
        "tower_layer": ((4, 16), (8, 4)),
        "duplicates": None,
        "tower_chunk": 4096,
    }
    assert (config.frames.backend, config.frames.min_pixels, config.frames.timeout) == ("decord", 3136, 5)
    assert (options.world.level, options.loading.attn_implementation) == ("hard", "eager")


def test_the_written_options_are_a_recipe_of_the_same_run(recipe, tmp_path):
    options, _ = launch.read_options(launch.RunOptions, launch.CGRPOConfig, ["--config", recipe])
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    names = {field.name for field in fields(launch.RunOptions)}
    again = launch.RunOptions(**{name: value for name, value in written.items() if name in names})
    assert again == options and again.compression == options.compression


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["--budget", "events:4"], {"budget": "events:4"}),
        (["--budget=tokens:9"], {"budget": "tokens:9", "layout": "frames"}),
        (["--budget", "tokens:9", "--layout", "events"], {"budget": "tokens:9", "layout": "events"}),
        (["--target-frames", "3"], {"layout": "frames", "target_frames": 3}),
    ],
)
def test_a_typed_budget_replaces_the_recipes(recipe, typed, expected):
    options, _ = launch.read_options(launch.RunOptions, launch.CGRPOConfig, ["--config", recipe, *typed])
    given = options.compression
    assert {name: given[name] for name in given if name in ("budget", "layout", "target_frames")} == expected


def test_typed_fields_replace_a_recipes_budget(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"bf16: false\nbudget: events:4\noutput_dir: {tmp_path}\n")
    for typed, expected in ([], {"budget": "events:4"}), (["--layout", "frames"], {"layout": "frames"}):
        options, _ = launch.read_options(launch.RunOptions, launch.CGRPOConfig, ["--config", str(path), *typed])
        assert options.compression == expected


def test_a_typed_layout_leaves_a_recipes_tokens(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"bf16: false\nbudget: tokens:16\noutput_dir: {tmp_path}\n")
    typed = ["--config", str(path), "--layout", "details"]
    options, _ = launch.read_options(launch.RunOptions, launch.CGRPOConfig, typed)
    assert options.compression == {"budget": "tokens:16", "layout": "details"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tower_layer": "deep"}, "tower_layer must be a whole number or a schedule"),
        ({"ratio": 2}, "ratio must be a number in"),
        ({"budget": "events:2", "layout": "events"}, "the budget events:2 leaves nothing for layout"),
        ({"style": "loud"}, "unknown prompt style 'loud'"),
        ({"world_videos": 0}, "world_videos must be a whole number >= 1"),
    ],
)
def test_wrong_options_are_named_before_anything_is_loaded(options, message):
    with pytest.raises(ValueError, match=message):
        launch.RunOptions(**options)


def test_wrong_options_of_frames_are_named(tmp_path):
    with pytest.raises(ValueError, match="decoder must be one of pyav, decord, torchcodec"):
        launch.VideoSFTConfig(str(tmp_path), use_cpu=True, bf16=False, decoder="vlc")


@pytest.mark.parametrize(
    "text", [b"model: !!python/name:os.getcwd\n", b"model: [1\n", b"a: \xff\n", b"a: b: c\n", b"\tmodel: x\n"]
)
def test_a_recipe_that_is_none_is_named(text, tmp_path):
    (tmp_path / "recipe.yaml").write_bytes(text)
    with pytest.raises(ValueError, match=r"recipe\.yaml: a recipe is YAML with plain values") as caught:
        MAINS["sft"](["--config", str(tmp_path / "recipe.yaml"), "--output_dir", str(tmp_path / "out")])
    assert "\n" not in str(caught.value)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghijklmnop")
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "without aliases"),
        ("model: tiny\nenv:\n  LD_PRELOAD: /tmp/x.so\n", "sets no environment variables"),
        ("{" * 5000, "nested too deeply"),
        ("a: " * 40_000, "bytes are no recipe"),
        ("[1, 2]\n", "must contain a YAML mapping"),
        ("1: 2\n", "plain values"),
        ("modle: tiny\n", r"recipe\.yaml: no option is called modle; did you mean model\?"),
        ("learning_rate: {a: 1}\n", ""),
    ],
)
def test_a_recipe_keeps_nobody_busy(text, message, tmp_path):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        MAINS["sft"](["--config", str(tmp_path / "recipe.yaml"), "--output_dir", str(tmp_path / "out")])
