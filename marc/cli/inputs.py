"""Files as users write them: by folder, by pattern or in a list."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from marc.memory.addresses import is_address

VIDEO_ENDINGS = frozenset(
    {
        ".3gp",
        ".apng",
        ".asf",
        ".avi",
        ".flv",
        ".gif",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".mxf",
        ".ogv",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
    }
)
"""By which videos in a folder are known."""
PICTURE_ENDINGS = frozenset({".avif", ".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""By which pictures in a folder are known; those that move are videos all the same."""
LIST_MARK = "@"
COMMENT_MARK = "#"


def video_files(named: Iterable[str | Path], *, with_pictures: bool = False) -> list[str]:
    """The video files that arguments name, each once, in order.

    Args:
        named: Files; folders, for all videos below them; patterns such as ``films/*.mp4``, for shells that leave
            them alone; addresses of objects or of what they lie below (`marc.memory.objects`); ``@list.txt``, for a
            file with one of these on each line, where lines that begin with ``#`` are comments; paths in it begin in
            the current folder. A file is taken whatever its ending.
        with_pictures: Whether folders also stand for the pictures below them.

    Raises:
        ValueError: If a folder, a pattern, an address or a list names no video.
    """
    endings = VIDEO_ENDINGS | PICTURE_ENDINGS if with_pictures else VIDEO_ENDINGS
    return list(dict.fromkeys(file for each in named for file in _files(str(each), endings, ())))


def _files(named: str, endings: frozenset[str], lists: tuple[str, ...]) -> Iterator[str]:
    """The files of one argument; in folders those with these endings; ``lists`` are those that it stands in."""
    if is_address(named):
        from marc.memory.objects import listed

        yield from listed(named, endings)
        return
    path, exists = Path(named), os.path.exists(named)  # which also says so of names that no file can have
    if named.startswith(LIST_MARK) and not exists:
        yield from _listed(named.removeprefix(LIST_MARK), endings, lists)
    elif os.path.isdir(named):
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in endings and file.is_file())
        kind = "video" if endings == VIDEO_ENDINGS else "video or picture"
        yield from _some(found, f"{named}: no {kind} in this folder; known are {' '.join(sorted(endings))}")
    elif not exists and any(mark in named for mark in "*?[") and "\0" not in named:
        root = Path(path.anchor or ".")
        yield from _some(sorted(root.glob(str(path.relative_to(path.anchor)))), f"{named}: no file is called so")
    else:
        yield named


def _listed(file: str, endings: frozenset[str], lists: tuple[str, ...]) -> Iterator[str]:
    place = os.path.realpath(file)
    if place in lists:
        raise ValueError(f"{file}: this list of videos names itself")
    content = Path(file).read_bytes()
    if b"\0" in content:
        raise ValueError(f"{file}: a list of videos is a text with one on each line")
    lines = [line.strip() for line in os.fsdecode(content).split("\n")]
    named = [line for line in lines if line and not line.startswith(COMMENT_MARK)]
    for line in _some(named, f"{file}: the list is empty"):
        yield from _files(line, endings, (*lists, place))


def _some(found: list[Path] | list[str], problem: str) -> Iterator[str]:
    if not found:
        raise ValueError(problem)
    yield from map(str, found)
