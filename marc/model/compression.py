"""Moved to `marc.compression`; these names are handed on for one release."""

import warnings

from marc.compression.merge import CompressedVideo as CompressedFrames
from marc.compression.merge import compress, compress_planned, frame_similarity, merge_weights

warnings.warn("marc.model.compression is now marc.compression", DeprecationWarning, stacklevel=2)

__all__ = ["CompressedFrames", "compress", "compress_planned", "frame_similarity", "merge_weights"]
