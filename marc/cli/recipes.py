"""The options of ``marc train grpo|sft|tower``, as ``--help`` shows them without importing TRL, which takes seconds.

Most of them are TRL's, and TRL's parser says what they are. What it says is written down beside this file:

    python -m marc.cli.recipes

Whoever has other versions of TRL and transformers than it was written with is shown what their own parser says.
"""

from __future__ import annotations

import argparse
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from marc.io import write_text

WRITTEN = Path(__file__).with_suffix(".json")
METHODS = ("grpo", "sft", "tower")
_DESCRIBED = ("nargs", "choices", "default", "help")


def is_asked_for(arguments: list[str]) -> bool:
    """Whether a command line asks for help."""
    return "--help" in arguments or "-h" in arguments


def print_help(method: str, description: str) -> None:
    """Prints the options of a recipe.

    Args:
        method: One of `METHODS`.
        description: What is said before them.
    """
    written = json.loads(WRITTEN.read_text(encoding="utf-8"))
    options = written[method] if written["versions"] == installed_versions() else described(method)
    parser = argparse.ArgumentParser(
        f"marc train {method}",
        usage="%(prog)s --config RECIPE [--option value ...]",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for option in options:
        switch = {"action": "store_false"} if option["nargs"] == 0 else {"nargs": option["nargs"]}
        named = {key: option[key] for key in _DESCRIBED if key in option and key != "nargs"}
        parser.add_argument(*option["flags"], **named, **switch)
    parser.print_help()


def known_options(method: str) -> set[str]:
    """Names of a recipe's options; empty where other versions of TRL and transformers may have others.

    Args:
        method: One of `METHODS`.
    """
    written = json.loads(WRITTEN.read_text(encoding="utf-8"))
    if written["versions"] != installed_versions():
        return set()
    flags = (flag for option in written[method] for flag in option["flags"])
    return {"config", *(flag.lstrip("-").replace("-", "_") for flag in flags)}


def described(method: str) -> list[dict[str, Any]]:
    """What TRL's parser says about each option of a recipe, as JSON has it."""
    from marc.training.run import recipe_parser

    found = []
    for action in recipe_parser(method, [])._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        said = {"flags": action.option_strings, **{name: getattr(action, name) for name in _DESCRIBED}}
        if said["choices"] is None or said["nargs"] == 0:
            del said["choices"]
        found.append(json.loads(json.dumps(said, default=list)))
    return found


def installed_versions() -> dict[str, str]:
    """Of the packages that say which options there are; empty if one is not there."""
    try:
        return {name: metadata.version(name) for name in ("transformers", "trl")}
    except metadata.PackageNotFoundError:
        return {}


def written_anew() -> str:
    """What `WRITTEN` should hold."""
    content = {"versions": installed_versions(), **{method: described(method) for method in METHODS}}
    return json.dumps(content, indent=1) + "\n"


if __name__ == "__main__":
    write_text(WRITTEN, written_anew())
