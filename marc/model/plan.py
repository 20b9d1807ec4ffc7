"""Moved to `marc.compression`; these names are handed on for one release."""

import warnings

from marc.compression.config import CompressionConfig
from marc.compression.plan import VideoPlan, Window, event_lengths, plan_video

warnings.warn("marc.model.plan is now marc.compression", DeprecationWarning, stacklevel=2)

__all__ = ["CompressionConfig", "VideoPlan", "Window", "event_lengths", "plan_video"]
