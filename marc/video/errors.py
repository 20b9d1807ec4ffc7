"""The one error of this package: something about a video that its user can act on."""

from __future__ import annotations


class VideoError(ValueError):
    """A video that cannot be read as asked; the message names the file, the cause, and what to do."""
