"""Runs that die: what they leave behind, and that they go on as if nothing had happened."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_training import make_trainer
from transformers import TrainerState, TrainingArguments

from marc.training.resume import RoomForCheckpoints, checkpoint_bytes, last_checkpoint, room_for_checkpoints
from marc.training.run import run_grpo, run_sft, run_tower
from robustness.toy_training import trainer

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12
RUN = {
    "--world_videos": "2",
    "--world_questions": "2",
    "--max_steps": str(STEPS),
    "--save_steps": "2",
    "--disable_tqdm": "true",
}
NOT_RESUMED = ("step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second", "num_tokens")
"""Times, and the tokens that TRL's SFT counts since the process began."""


KINDS = {
    "grpo": (run_grpo, {"--per_device_train_batch_size": "8", "--max_completion_length": "6"}),
    "sft": (run_sft, {"--per_device_train_batch_size": "1", "--logging_steps": "1"}),
    "tower": (run_tower, {"--per_device_train_batch_size": "1", "--logging_steps": "1"}),
}


def arguments(kind: str, output: Path) -> list[str]:
    options = {**RUN, **KINDS[kind][1], "--output_dir": str(output)}
    return [part for option in options.items() for part in option]


def history(output: Path) -> list[dict]:
    """What a run logged."""
    state = json.loads((output / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    return [{key: value for key, value in row.items() if key not in NOT_RESUMED} for row in state["log_history"]]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["grpo", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("sft", "tower"))])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(kind, tmp_path):
    """``kill -9`` after the first checkpoint of the real launcher, called from another folder; then ``--resume``."""
    main, config = KINDS[kind][0], ["--config", str(ROOT / "configs" / f"{kind}_world.yaml")]
    main([*config, *arguments(kind, tmp_path / "whole")])
    killed = tmp_path / "killed"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            ["bash", str(ROOT / "training_script" / f"run_{kind}_video.sh"), *arguments(kind, killed)],
            cwd=tmp_path,
            env={**os.environ, "PYTHON": sys.executable},
            stdout=log,
            stderr=log,
        )
        wait_for(killed / "checkpoint-2" / "trainer_state.json", process, tmp_path / "log")
        process.send_signal(signal.SIGKILL)  # the launcher has become Python by `exec`
        assert process.wait() == -signal.SIGKILL
    assert not (killed / f"checkpoint-{STEPS}").exists()
    (killed / f"checkpoint-{STEPS - 1}").mkdir()  # as if it had died while saving
    main([*config, *arguments(kind, killed), "--resume", "true"])
    assert len(history(killed)) == STEPS
    assert history(killed) == history(tmp_path / "whole")


def wait_for(file: Path, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 600
    while not file.exists():
        assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.01)


@pytest.mark.parametrize("left", [None, "", '{"global_step": 1'], ids=["nothing", "empty", "half"])
def test_half_a_checkpoint_is_not_resumed_from(left, tmp_path):
    assert last_checkpoint(tmp_path) is None
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    (tmp_path / "checkpoint-11").mkdir()
    if left is not None:
        (tmp_path / "checkpoint-11" / "trainer_state.json").write_text(left)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path / "nowhere") is None


def test_an_older_checkpoint_is_deleted_once_the_disk_holds_the_new_one(tmp_path, monkeypatch):
    """And the state by which a checkpoint counts as whole is written once the disk holds the rest of it."""
    steps, sync, remove = [], os.fsync, shutil.rmtree
    save = TrainerState.save_to_json

    def saved(state, path):
        steps.append(("state", Path(path).parent.name))
        save(state, path)

    def removed(path, *rest, **options):
        steps.append(("removed", Path(path).name))
        remove(path, *rest, **options)

    monkeypatch.setattr(TrainerState, "save_to_json", saved)
    monkeypatch.setattr(shutil, "rmtree", removed)
    monkeypatch.setattr(os, "fsync", lambda file: steps.append(os.readlink(f"/proc/self/fd/{file}")) or sync(file))
    trainer(tmp_path / "run", 0, lambda step: None).train()
    assert [path.name for path in sorted((tmp_path / "run").iterdir())] == ["checkpoint-4", "checkpoint-5"]
    whole = {str(path) for path in (tmp_path / "run" / "checkpoint-5").iterdir()}
    before = steps[: steps.index(("state", "checkpoint-5"))]
    assert whole - {str(tmp_path / "run" / "checkpoint-5" / "trainer_state.json")} <= set(before)
    assert whole | {str(tmp_path / "run")} <= set(steps[: steps.index(("removed", "checkpoint-3"))])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"save_steps": 10}, "at most 5 in {} 10.00 GiB; save_total_limit keeps fewer"),
        ({"save_steps": 10, "save_total_limit": 2}, "at most 3 in {} 6.00 GiB"),
        ({"save_steps": 0.5}, "at most 2 in {} 4.00 GiB; save_total_limit keeps fewer"),
        ({"save_steps": 50}, ""),
        ({"save_strategy": "epoch", "num_train_epochs": 3}, "at most 3 in {} 6.00 GiB; save_total_limit keeps fewer"),
        ({"save_strategy": "no"}, ""),
    ],
)
def test_the_room_for_checkpoints_is_said(options, said, tmp_path, monkeypatch):
    args = TrainingArguments(str(tmp_path), use_cpu=True, **{"save_strategy": "steps", **options})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=19 * 2**30))
    told = room_for_checkpoints(2 * 2**30, args, steps=42)
    assert told == (f"a checkpoint takes about 2.00 GiB, {said.format(tmp_path)}" if said else "")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1 * 2**30))
    assert not said or ": MORE than the 1.00 GiB that are free there" in room_for_checkpoints(
        2 * 2**30, args, steps=42
    )


def test_a_checkpoint_is_as_large_as_it_was_said_to_be(files, rows, tmp_path, capsys):
    trainer = make_trainer(files, rows, tmp_path, max_steps=2, save_strategy="steps", save_steps=1)
    trainer.add_callback(RoomForCheckpoints())
    trainer.train()
    held = sum(file.stat().st_size for file in (tmp_path / "run" / "checkpoint-1").iterdir())
    assert checkpoint_bytes(trainer.model) == pytest.approx(held, rel=0.1)
    assert "a checkpoint takes about 0.0" in capsys.readouterr().err
