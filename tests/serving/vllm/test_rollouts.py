"""C-GRPO learns from vLLM's answers: the engine's weights, features and tied head are the policy's in each step."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
SCRIPT = Path(__file__).with_name("train_with_rollouts.py")
DIFFERENCE = "sampling/sampling_logp_difference/max"
EQUAL = 1e-4


def trained(folder: Path, **case: object) -> dict:
    """Three steps in a process of their own, as one process has room for one engine."""
    result = subprocess.run(
        [sys.executable, SCRIPT, folder, json.dumps(case)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


@pytest.mark.parametrize(
    "case",
    [
        {"family": "qwen2_5_vl"},
        {"family": "qwen2_5_vl", "tied": True},
        {"family": "qwen3_vl", "lora": True},
    ],
    ids=str,
)
def test_log_probabilities_of_engine_and_training_pass_agree_in_each_step(tmp_path, case):
    """The tower is trained, so that features of an earlier step would show, and budgets change from step to step."""
    result = trained(tmp_path, **case)
    assert len(result["steps"]) == 3 and {step["budget/full"] for step in result["steps"]} == {0.0, 1.0}
    assert all(step[DIFFERENCE] < EQUAL and step["grad_norm"] > 0 for step in result["steps"])
    assert result["vision_tokens"] == 0 and len({tuple(answer) for answer in result["answers"]}) > 6


@pytest.mark.parametrize("without", ["weights", "head"])
def test_what_was_not_brought_shows(tmp_path, without):
    first, *later = trained(tmp_path, family="qwen2_5_vl", tied=True, without=without)["steps"]
    assert first[DIFFERENCE] < EQUAL < 0.01 < min(step[DIFFERENCE] for step in later)


def test_a_run_is_repeated_by_its_seed(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = (trained(tmp_path / name, family="qwen2_5_vl", max_steps=2)["answers"] for name in ("one", "two"))
    assert one == two


def test_groups_that_are_drawn_again_bring_their_weights(tmp_path):
    """All are, where every answer is rewarded alike; TRL weighs what remains by the engine's log-probabilities."""
    result = trained(tmp_path, family="qwen2_5_vl", flat=True, dynamic_sampling=1, max_steps=2)
    assert [step["groups/without_variance"] for step in result["steps"]] == [1.0, 1.0]
    assert len(result["answers"]) == 2 * 2 * 4
