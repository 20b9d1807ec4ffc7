"""The version of the package, as it was installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("marc-video")
except PackageNotFoundError:
    __version__ = "0+not.installed"
