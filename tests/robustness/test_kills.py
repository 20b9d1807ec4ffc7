"""A few kills of each store, and stores that are badly written, which kills must find."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from robustness.disk import compile_shim
from robustness.kills import environment
from robustness.stores import STORES

ROOT = Path(__file__).parents[2]
QUICK = ["files", "memories", "evaluation", "batch answers", "manifests", "journal of checks"]

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None or sys.platform != "linux", reason="needs Linux and a C compiler"
)


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    return compile_shim(tmp_path_factory.mktemp("shim"))


def test_every_store_has_a_name_of_its_own():
    names = [kind.name for kind in STORES]
    assert len(set(names)) == len(names) and set(QUICK) < set(names)


@pytest.mark.parametrize("store", QUICK)
def test_nothing_acknowledged_is_lost(store, tmp_path, shim):
    output = tmp_path / "kills.jsonl"
    command = [sys.executable, "-m", "robustness.kills", "--store", store, "--trials", "20", "--output", str(output)]
    result = subprocess.run(
        [*command, "--seed", "1"], cwd=ROOT, env=environment(shim), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    trials = [json.loads(line) for line in output.read_text().splitlines()][1:]
    assert [trial["number"] for trial in trials] == list(range(20)) and not any(t["failures"] for t in trials)
    assert sum(trial["tried"] for trial in trials) >= 20


def test_what_is_written_badly_is_found(tmp_path, shim):
    helper = Path(__file__).parent / "helpers" / "careless.py"
    result = subprocess.run(
        [sys.executable, str(helper), str(tmp_path.resolve())],
        env={**environment(shim), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(map(json.loads, result.stdout.splitlines()))
    assert any("power lost" not in failure and "half" in failure for failure in found["in place"])
    assert found["unsynchronised"] and all("power lost" in failure for failure in found["unsynchronised"])
    assert any("power lost" not in failure for failure in found["forgetful"])
