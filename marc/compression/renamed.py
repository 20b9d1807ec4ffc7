"""Names that have changed and go on working for one release, with a `DeprecationWarning`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed(new: str) -> Any:
    """A property that hands on the attribute ``new``."""

    def get(owner: Any) -> Any:
        warnings.warn(f"this attribute of {type(owner).__name__} is now called {new}", DeprecationWarning, 2)
        return getattr(owner, new)

    return property(get)


def renamed_arguments(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets a function take arguments by old names: ``old="new"``."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in names.keys() & kwargs.keys():
                warnings.warn(f"{function.__name__}: {old} is now called {names[old]}", DeprecationWarning, 2)
                kwargs[names[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate
