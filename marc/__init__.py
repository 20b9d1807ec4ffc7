"""MARC: video question answering from one frame's worth of visual tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marc.lazy import handed_on
from marc.model import auto

if TYPE_CHECKING:
    from marc.inference.assistant import VideoAssistant as VideoAssistant
    from marc.model.loading import load_model as load_model
    from marc.types import Clip as Clip
    from marc.types import Frames as Frames
    from marc.version import __version__ as __version__

_HOMES = {
    "Clip": "marc.types",
    "Frames": "marc.types",
    "VideoAssistant": "marc.inference.assistant",
    "__version__": "marc.version",
    "load_model": "marc.model.loading",
}

__all__ = ["Clip", "Frames", "VideoAssistant", "__version__", "load_model"]

auto.install()

__getattr__ = handed_on(__name__, _HOMES)
