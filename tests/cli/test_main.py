"""What the process of a command is set to before anything heavy is imported."""

import os
import subprocess
import sys

import pytest

PRINT_SETTINGS = """
import gc, os, sys
from marc.cli import main
sys.argv = ["marc", "--version"]
try:
    main()
except SystemExit as ended:
    print(ended.code, os.environ["OMP_WAIT_POLICY"], gc.isenabled(), gc.get_threshold()[0], gc.get_freeze_count() > 0)
"""


@pytest.mark.parametrize(("given", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_and_imports_are_searched_less_often(given: str | None, policy: str):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    told = {} if given is None else {"OMP_WAIT_POLICY": given}
    command = [sys.executable, "-c", PRINT_SETTINGS]
    result = subprocess.run(command, env={**environment, **told}, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == f"0 {policy} True 50000 True"
