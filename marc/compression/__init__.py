"""The method's mathematics: what is kept of a video, decided beforehand (plan) and carried out on tensors (merge).

Needs torch alone, neither transformers nor trl; `CompressionConfig` not even that. Names are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marc.lazy import handed_on

if TYPE_CHECKING:
    from marc.compression.config import CompressionConfig
    from marc.compression.merge import compress, frame_similarity
    from marc.compression.plan import VideoPlan, plan_video

__all__ = ["CompressionConfig", "VideoPlan", "compress", "frame_similarity", "plan_video"]

_HOMES = {
    "CompressionConfig": "marc.compression.config",
    "VideoPlan": "marc.compression.plan",
    "compress": "marc.compression.merge",
    "frame_similarity": "marc.compression.merge",
    "plan_video": "marc.compression.plan",
}

__getattr__ = handed_on(__name__, _HOMES)
