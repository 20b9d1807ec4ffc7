"""Doors to the programs that come with the source checkout, beside the package: ``benchmarks`` and ``experiments``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import marc

PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
"""Settings of a command that hands its arguments to another program."""

_ROOT = Path(marc.__file__).resolve().parents[1]


def is_checkout(folder: str) -> bool:
    """Whether a folder is beside the package."""
    return (_ROOT / folder).is_dir()


def from_checkout(module: str) -> Any:
    """A module beside the package.

    Raises:
        ValueError: If there is none, as in an installed wheel.
    """
    folder = module.partition(".")[0]
    if not is_checkout(folder):
        raise ValueError(f"this comes with the source checkout, not with the installed package: no {_ROOT / folder}")
    if str(_ROOT) not in sys.path:
        sys.path.insert(0, str(_ROOT))
    return importlib.import_module(module)
