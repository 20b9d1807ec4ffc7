"""Packages that not everybody needs: which extra of ``marc-video`` brings them.

They are imported where they are used, inside `extra`:

    with extra("library"):
        import lancedb
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


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
        package = (error.name or "a package").partition(".")[0]
        message = f"{package} is not installed, which this needs: pip install 'marc-video[{name}]'"
        raise MissingExtraError(message, name=package) from error
