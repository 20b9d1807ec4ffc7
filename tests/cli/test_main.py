"""What the process of a command is set to before anything heavy is imported."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from marc.cli import app

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


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--bogus",), "marc: no such option: --bogus"),
        (("--verbose=x",), "marc: option '--verbose' does not take a value; `marc --help` says what there is"),
        (("nonsense",), "marc: no such command 'nonsense'; `marc --help` says what there is"),
        (("ask", "--budgt", "3"), "marc ask: no such option: --budgt (Possible options: --budget)"),
        (("ask", "--library"), "marc ask: option '--library' requires an argument; `marc ask --help`"),
        (
            ("ask", "clip.mp4", "What?", "--dtype", "float7"),
            "marc ask: --dtype must be one of float32, bfloat16, float16",
        ),
        (("data", "nonsense"), "marc data: no such command 'nonsense'"),
        (("data", "check"), "marc data check: missing argument 'rows'; `marc data check --help`"),
        (("recall", "a\x1b[2J", "b", "c"), "marc recall: got unexpected extra argument"),
    ],
)
def test_a_typing_error_is_a_line_that_names_the_command_and_its_help(typed: tuple[str, ...], said: str):
    result = CliRunner().invoke(app, list(typed), prog_name="marc")
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith(said) and result.stderr.count("\n") == 1 and "\x1b" not in result.stderr
