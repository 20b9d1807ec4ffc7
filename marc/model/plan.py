"""Moved to `marc.compression`; these names are handed on for one release."""

import warnings

from marc.compression.config import CompressionConfig
from marc.compression.plan import VideoPlan, Window, event_lengths, plan_video
from marc.compression.plan import fit_size as fit_grid

warnings.warn("marc.model.plan is now marc.compression", DeprecationWarning, stacklevel=2)

__all__ = ["CompressionConfig", "VideoPlan", "Window", "event_lengths", "fit_grid", "plan_video"]
