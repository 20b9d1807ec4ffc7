"""What videos are called in memories and in the library: files by their path, objects of a store by their address."""

from __future__ import annotations

from pathlib import Path

SCHEMES = ("s3", "gs", "gcs", "abfs", "az")
"""Of the addresses of object stores."""


def is_address(video: str | Path) -> bool:
    """Whether a video is an object of a store, such as ``s3://bucket/film.mp4``."""
    scheme, mark, _ = str(video).partition("://")
    return bool(mark) and scheme in SCHEMES


def source_name(video: str | Path) -> str:
    """The address of an object, or the absolute path of a file."""
    return str(video) if is_address(video) else str(Path(video).expanduser().resolve())
