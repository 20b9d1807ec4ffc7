"""What `pyproject.toml` declares, and which modules it brings."""

import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, files, requires
from pathlib import Path

from imports import ROOT
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def modules_of(requirement: str) -> set[str]:
    """The top-level modules of a declared package; of one that is not installed, those that its name suggests."""
    name = Requirement(requirement).name
    try:
        return {Path(file.parts[0]).name.partition(".")[0] for file in files(name) or []}
    except PackageNotFoundError:
        return {name.replace("-", "_")}


def declared(extras: Iterable[str]) -> dict[str, set[str]]:
    """The modules that extras bring, each with the extras that bring it; packages of our own left out."""
    found: dict[str, set[str]] = {}
    for extra in extras:
        for requirement in EXTRAS[extra]:
            if Requirement(requirement).name != PROJECT["name"]:
                for module in modules_of(requirement):
                    found.setdefault(module, set()).add(extra)
    return found


def brought_by(requirements: Iterable[str]) -> set[str]:
    """The modules of all packages that are installed with some, those that they require in turn included."""
    found: set[str] = set()
    waiting, seen = list(requirements), set()
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(requirement.name)
        found |= modules_of(requirement.name)
        try:
            waiting += requires(requirement.name) or []
        except PackageNotFoundError:
            continue
    return found


CORE = {module for requirement in PROJECT["dependencies"] for module in modules_of(requirement)}
EVERYWHERE = brought_by(PROJECT["dependencies"])
OPTIONAL = {name: extras for name, extras in declared(set(EXTRAS) - {"all", "dev"}).items() if name not in EVERYWHERE}
"""Modules that may be absent, each with the extras that bring it."""
