"""Memories of sources that do not end: `LiveMemory` is written by whoever watches, `StoredWatch` read by all others.

Names are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marc.lazy import handed_on

if TYPE_CHECKING:
    from marc.memory.live.memory import LiveMemory
    from marc.memory.live.options import LiveOptions
    from marc.memory.live.snapshot import LiveSnapshot, Source
    from marc.memory.live.store import StoredWatch, find_watch, watch_folder

__all__ = ["LiveMemory", "LiveOptions", "LiveSnapshot", "Source", "StoredWatch", "find_watch", "watch_folder"]

_HOMES = {
    "LiveMemory": "marc.memory.live.memory",
    "LiveOptions": "marc.memory.live.options",
    "LiveSnapshot": "marc.memory.live.snapshot",
    "Source": "marc.memory.live.snapshot",
    "StoredWatch": "marc.memory.live.store",
    "find_watch": "marc.memory.live.store",
    "watch_folder": "marc.memory.live.store",
}

__getattr__ = handed_on(__name__, _HOMES)
