"""The Visual Memory Retriever: cut a video into events, remember them, find the ones that a question is about.

Names are loaded on first use, so that importing this package needs neither torch nor a database.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder
    from marc.memory.events import segment_events
    from marc.memory.index import MemoryOptions, remember, remember_all
    from marc.memory.library import MemoryLibrary
    from marc.memory.select import FramePlan, VisualMemoryRetriever, default_embedder, plan_frames
    from marc.memory.store import VideoMemory

__all__ = [
    "EventEmbedder",
    "FramePlan",
    "MemoryLibrary",
    "MemoryOptions",
    "VideoMemory",
    "VisualMemoryRetriever",
    "default_embedder",
    "plan_frames",
    "remember",
    "remember_all",
    "segment_events",
]

_HOMES = {
    "EventEmbedder": "embedder",
    "FramePlan": "select",
    "MemoryLibrary": "library",
    "MemoryOptions": "index",
    "VideoMemory": "store",
    "VisualMemoryRetriever": "select",
    "default_embedder": "select",
    "plan_frames": "select",
    "remember": "index",
    "remember_all": "index",
    "segment_events": "events",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
