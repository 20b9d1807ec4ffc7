"""Every program says how it is started, and answers to ``--help``."""

import importlib
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1]
PROGRAMS = sorted(path.stem for path in FOLDER.glob("*.py") if 'if __name__ == "__main__":' in path.read_text())
WORKERS = {"timed_memory", "timed_teacher", "timed_training"}


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in WORKERS])
def test_help_works(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    assert "--" in capsys.readouterr().out
    assert f"python -m benchmarks.{name}" in (importlib.import_module(f"benchmarks.{name}").__doc__ or "")
    assert f"`{name}`" in (importlib.import_module("benchmarks").__doc__ or ""), "the list of programs"
