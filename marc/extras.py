"""Packages that not everybody needs: what is said where one of them is not installed.

They are imported where they are used, inside `extra`:

    with extra("library"):
        import lancedb
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

_APART = {"vllm": "an environment of its own, by bash inference_script/setup_vllm.sh (docs/vllm.md)"}
"""What brings extras that cannot be installed beside the others."""


class MissingExtraError(ImportError):
    """A package is not installed that belongs to one of the extras."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Says how to install what an import in this block does not find.

    Args:
        name: The extra that brings the package, from ``pyproject.toml``.

    Raises:
        MissingExtraError: If a package is not there; the message is one line and names package and extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise _missing((error.name or "a package").partition(".")[0], name) from error


def require(name: str, *packages: str) -> None:
    """Refuses to begin what would fail for want of a package later; imports nothing.

    Args:
        name: The extra that brings the packages.
        packages: Their modules.

    Raises:
        MissingExtraError: If one of them is not there.
    """
    for package in packages:
        if find_spec(package) is None:
            raise _missing(package, name)


def _missing(package: str, name: str) -> MissingExtraError:
    remedy = _APART.get(name, f"pip install '.[{name}]' in marc's folder")
    return MissingExtraError(f"{package} is not installed, which this needs: {remedy}", name=package)
