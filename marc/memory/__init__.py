"""The Visual Memory Retriever: cut a video into events, remember them, find the ones that a question is about.

Names are loaded on first use, so that importing this package needs neither torch nor a database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marc.lazy import handed_on

if TYPE_CHECKING:
    from marc.memory.detectors import ShotDetector, Transition, register_detector
    from marc.memory.embedder import EventEmbedder
    from marc.memory.filters import EventFilter
    from marc.memory.index import remember
    from marc.memory.library import MemoryLibrary
    from marc.memory.options import FirstAnswerOptions, MemoryOptions, RetrievalOptions
    from marc.memory.select import FramePlan, VisualMemoryRetriever, default_embedder, plan_frames
    from marc.memory.shots import segment_events
    from marc.memory.store import VideoMemory
    from marc.memory.workers import remember_all

__all__ = [
    "EventEmbedder",
    "EventFilter",
    "FirstAnswerOptions",
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
    "EventEmbedder": "marc.memory.embedder",
    "EventFilter": "marc.memory.filters",
    "FirstAnswerOptions": "marc.memory.options",
    "FramePlan": "marc.memory.select",
    "MemoryLibrary": "marc.memory.library",
    "MemoryOptions": "marc.memory.options",
    "RetrievalOptions": "marc.memory.options",
    "ShotDetector": "marc.memory.detectors",
    "Transition": "marc.memory.detectors",
    "VideoMemory": "marc.memory.store",
    "VisualMemoryRetriever": "marc.memory.select",
    "default_embedder": "marc.memory.select",
    "plan_frames": "marc.memory.select",
    "register_detector": "marc.memory.detectors",
    "remember": "marc.memory.index",
    "remember_all": "marc.memory.workers",
    "segment_events": "marc.memory.shots",
}

__getattr__ = handed_on(__name__, _HOMES)
