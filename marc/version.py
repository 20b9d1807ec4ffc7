"""The version of the package, as it was installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("marc-video")
except PackageNotFoundError:
    __version__ = "0+not.installed"
ANSWERS = 5
"""Raised when the same options come to mean other frames, tokens or prompts: answers kept from before do not go on."""
