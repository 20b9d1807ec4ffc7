"""Measurements of other checkouts of this project, on the same interpreter and libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
"""This checkout."""


def measure(worker: Path, checkout: Path, folder: Path, arguments: Sequence[str]) -> Any:
    """What a program measured that ran a checkout's code, in a process of its own with one thread.

    Args:
        worker: The program: it is given a file to write JSON to, the checkout, and the arguments.
        checkout: Whose code it runs.
        folder: Where it runs.
        arguments: Further ones.

    Raises:
        FileNotFoundError: There is no such checkout.
        subprocess.CalledProcessError: If it fails; its output has been printed.
    """
    if not (checkout / "marc" / "__init__.py").exists():
        raise FileNotFoundError(f"{checkout}: no checkout of this project; make one with git worktree add")
    result = folder / "result.json"
    command = [sys.executable, str(worker), str(result), str(checkout), *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, command)
    return json.loads(result.read_text(encoding="utf-8"))
