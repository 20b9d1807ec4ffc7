"""TRL's own tests of its GRPO, run on our trainer: what passes with theirs passes with ours.

They are not part of TRL's package. With a copy of TRL's repository at the installed version:

    MARC_TRL_TESTS=/path/to/trl/tests python -m pytest tests/training/test_trl_suite.py -m slow

Their models and data come from the hub; small ones of the same names are made here instead, and tests that need others
(vLLM, liger, bitsandbytes, a GPU, further architectures) fail or are skipped with either trainer.
"""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from trl_hub import build_hub

HELPERS = Path(__file__).resolve().parent / "helpers"
ROOT = HELPERS.parents[2]


def outcomes(hub: Path, file: Path, *plugin: str) -> dict[str, str]:
    """What became of each test: passed, skipped, failure or error."""
    report = hub / "report.xml"
    plugins = ["-p", "no:cacheprovider", "-p", "trl_on_cpu", *plugin]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, f"--junitxml={report}", str(file)]
    path = os.pathsep.join([str(ROOT), str(HELPERS), str(file.parents[1])])
    subprocess.run(command, cwd=hub, env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}, check=False)
    return {
        f"{case.get('classname')}::{case.get('name')}": case[0].tag if len(case) else "passed"
        for case in ElementTree.parse(report).iter("testcase")
    }


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif("MARC_TRL_TESTS" not in os.environ, reason="MARC_TRL_TESTS does not name TRL's tests")
def test_what_passes_with_trl_passes_with_ours(tmp_path):
    build_hub(tmp_path)
    file = Path(os.environ["MARC_TRL_TESTS"]).resolve() / "test_grpo_trainer.py"
    theirs = outcomes(tmp_path, file)
    ours = outcomes(tmp_path, file, "-p", "trl_with_ours")
    passed = {name for name, outcome in theirs.items() if outcome == "passed"}
    lost = {name: ours.get(name) for name in passed if ours.get(name) != "passed"}
    print(f"{len(passed)} of {len(theirs)} pass with TRL, {len(passed) - len(lost)} of them with ours")
    assert passed and not lost
