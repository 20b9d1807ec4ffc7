"""The licences of all locked packages, as their own metadata has them: what docs/licences.md lists.

    python -m benchmarks.licences

writes that page anew from `requirements.lock` and the environment that it runs in. Packages that are not installed
there, being for another system or another Python, keep the line that the page has of them.
"""

from __future__ import annotations

import argparse
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from marc.io import write_text

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
PAGE = ROOT / "docs" / "licences.md"
UNKNOWN = "not installed where this page was written"
HEAD = """# Licences of the packages that marc is tested with

Written by `python -m benchmarks.licences` from `requirements.lock` and what each installed package says of itself.
Nobody has checked what they say. Wheels also hold libraries with licences of their own, such as PyAV's FFmpeg.

| package | licence |
|---|---|
"""


def locked() -> list[str]:
    """Names of the packages of the lock, each once, in order."""
    names = re.findall(r"^([A-Za-z0-9._-]+)==", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    return sorted({name.lower().replace("_", "-") for name in names})


def listed() -> dict[str, str]:
    """What the page says of each package."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    return dict(re.findall(r"^\| ([^|`]+) \| ([^|]+) \|$", text.partition("|---|---|")[2], re.MULTILINE))


def licence_of(name: str) -> str | None:
    """What an installed package says: an SPDX expression, else its classifiers, else a line of text; else None."""
    try:
        told: Any = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    classified = [
        each.rpartition(" :: ")[2] for each in told.get_all("Classifier", []) if each.startswith("License ::")
    ]
    text = told.get("License") or ""
    short = text.strip().split("\n")[0][:80]
    found = told.get("License-Expression") or ", ".join(dict.fromkeys(classified)) or short or "says nothing"
    return found.replace("|", "/")


def page() -> str:
    """The page as it should be."""
    before = listed()
    rows = ((name, licence_of(name) or before.get(name, UNKNOWN)) for name in locked())
    return HEAD + "".join(f"| {name} | {licence} |\n" for name, licence in rows)


def main() -> None:
    """Entry point of ``python -m benchmarks.licences``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=PAGE, help="the page, by default docs/licences.md")
    write_text(parser.parse_args().output, page())


if __name__ == "__main__":
    main()
