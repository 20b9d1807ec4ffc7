"""The Visual Memory Retriever: cut a video into events, remember them, find the ones that a question is about.

Names are loaded on first use, so that importing this package needs neither torch nor a database.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marc.memory.detectors import ShotDetector, Transition, register_detector
    from marc.memory.embedder import EventEmbedder
    from marc.memory.index import remember
    from marc.memory.library import MemoryLibrary
    from marc.memory.options import MemoryOptions, RetrievalOptions
    from marc.memory.select import FramePlan, VisualMemoryRetriever, default_embedder, plan_frames
    from marc.memory.shots import segment_events
    from marc.memory.store import VideoMemory
    from marc.memory.workers import remember_all

__all__ = [
    "EventEmbedder",
    "FramePlan",
    "MemoryLibrary",
    "MemoryOptions",
    "RetrievalOptions",
    "ShotDetector",
    "Transition",
    "VideoMemory",
    "VisualMemoryRetriever",
    "default_embedder",
    "plan_frames",
    "register_detector",
    "remember",
    "remember_all",
    "segment_events",
]

_HOMES = {
    "EventEmbedder": "embedder",
    "FramePlan": "select",
    "MemoryLibrary": "library",
    "MemoryOptions": "options",
    "RetrievalOptions": "options",
    "ShotDetector": "detectors",
    "Transition": "detectors",
    "VideoMemory": "store",
    "VisualMemoryRetriever": "select",
    "default_embedder": "select",
    "plan_frames": "select",
    "register_detector": "detectors",
    "remember": "index",
    "remember_all": "workers",
    "segment_events": "shots",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
