"""MARC: video question answering from one frame's worth of visual tokens."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from marc.model import auto

if TYPE_CHECKING:
    from marc.inference.assistant import VideoAssistant as VideoAssistant
    from marc.model.loading import load_model as load_model

_HOMES = {"VideoAssistant": "marc.inference.assistant", "load_model": "marc.model.loading"}

__all__ = ["VideoAssistant", "load_model"]

auto.install()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'marc' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
