"""The method's mathematics: what is kept of a video, decided beforehand (plan) and carried out on tensors (merge).

Needs torch alone, neither transformers nor trl; `CompressionConfig` not even that. Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marc.compression.config import CompressionConfig
    from marc.compression.merge import compress, frame_similarity
    from marc.compression.plan import VideoPlan, plan_video

__all__ = ["CompressionConfig", "VideoPlan", "compress", "frame_similarity", "plan_video"]

_HOMES = {
    "CompressionConfig": "config",
    "VideoPlan": "plan",
    "compress": "merge",
    "frame_similarity": "merge",
    "plan_video": "plan",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
