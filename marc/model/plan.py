"""Moved to `marc.compression`; these names are handed on for one release."""

import warnings

from marc.compression.config import CompressionConfig as CompressionConfig
from marc.compression.plan import (
    VideoPlan as VideoPlan,
)
from marc.compression.plan import (
    Window as Window,
)
from marc.compression.plan import (
    event_lengths as event_lengths,
)
from marc.compression.plan import (
    fit_grid as fit_grid,
)
from marc.compression.plan import (
    plan_video as plan_video,
)

warnings.warn("marc.model.plan is now marc.compression", DeprecationWarning, stacklevel=2)
