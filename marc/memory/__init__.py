"""The Visual Memory Retriever: cut a video into events, remember them, find the ones that a question is about.

Names are loaded on first use, so that importing this package needs neither torch nor a database.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marc.memory.embedding import EventEmbedder
    from marc.memory.events import segment_events
    from marc.memory.retriever import FramePlan, VisualMemoryRetriever, plan_frames

_HOMES = {
    "EventEmbedder": "embedding",
    "FramePlan": "retriever",
    "VisualMemoryRetriever": "retriever",
    "plan_frames": "retriever",
    "segment_events": "events",
}

__all__ = ["EventEmbedder", "FramePlan", "VisualMemoryRetriever", "plan_frames", "segment_events"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
