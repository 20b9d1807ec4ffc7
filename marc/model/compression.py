"""Moved to `marc.compression`; these names are handed on for one release."""

import warnings

from marc.compression.merge import (
    CompressedFrames as CompressedFrames,
)
from marc.compression.merge import (
    compress as compress,
)
from marc.compression.merge import (
    compress_planned as compress_planned,
)
from marc.compression.merge import (
    frame_similarity as frame_similarity,
)
from marc.compression.merge import (
    merge_weights as merge_weights,
)

warnings.warn("marc.model.compression is now marc.compression", DeprecationWarning, stacklevel=2)
