"""Videos in object stores, by addresses such as ``s3://bucket/films/one.mp4``, through fsspec (the extra ``objects``).

An object is copied to this machine before it is read: for as long as somebody works with it (`fetched`), or kept for
the next time while there is room (`kept`). What is known of an object goes by its state: address, size, and ETag or,
where a store has none, the time of its last change.

The variables of the environment by which LanceDB finds a store (``AWS_ENDPOINT``, ``AWS_REGION``, keys) are read here,
too, beside those that botocore reads.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from marc.extras import MissingExtraError, extra
from marc.io import cause_of, make_folders, replacing, sha256_json
from marc.memory.store import cache_folder
from marc.video import VideoError
from marc.video.subtitles import SUFFIXES

KEPT_BYTES = 20 * 10**9
"""Most that copies may take which are kept for the next time."""
IN_USE = 600.0
"""Seconds for which a copy stays whatever it takes: somebody may be about to read it."""
_STAMPS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime")
"""What stores call an object's ETag, or else the time of its last change."""
_PATTERN = "*?["
_NAME_BYTES = 200
_USED = ".used"
_SUBTITLES = ".subtitles"


@dataclass(frozen=True)
class StoredObject:
    """An object as it is now.

    Attributes:
        address: Where it is.
        size: Bytes.
        state: SHA-256 of its address, size and ETag or time of change.
    """

    address: str
    size: int
    state: str

    @property
    def name(self) -> str:
        """What its copies are called; the end of its name where that is too long for a file."""
        return os.fsencode(self.address.rpartition("/")[2])[-_NAME_BYTES:].decode(errors="ignore")

    @property
    def folder(self) -> Path:
        """Where on this machine belongs what is known of it."""
        return cache_folder("objects") / self.state[:32]


def look_up(address: str) -> StoredObject:
    """An object as it is now.

    Raises:
        VideoError: There is none with something in it at this address, or the store does not say.
    """
    with _explained(address):
        filesystem, path = _opened(address)
        info = filesystem.info(path)
    if info["type"] != "file" or address.rpartition("/")[2] in ("", ".", ".."):
        raise VideoError(f"{address}: this is no object but what others lie below; name an object")
    if not info["size"]:
        raise VideoError(f"{address}: the object is empty (0 bytes); get it again")
    return StoredObject(address, info["size"], _state_of(address, info))


def subtitles_state(address: str) -> str:
    """SHA-256 of the states of the subtitles that lie beside an object, which may change while it does not.

    Raises:
        VideoError: The store does not say.
    """
    return sha256_json(_subtitles_beside(address))


def listed(address: str, endings: Collection[str]) -> list[str]:
    """The addresses of the objects that one stands for.

    Args:
        address: Of an object; what objects lie below, like a folder; or a pattern such as ``s3://bucket/*.mp4``. One
            that ends like a video is taken for an object without looking.
        endings: Which objects of a folder are meant.

    Raises:
        VideoError: There is none, or the store does not say.
    """
    has_ending = PurePosixPath(address).suffix.lower() in endings
    if has_ending and not any(mark in address for mark in _PATTERN):
        return [address]
    with _explained(address):
        filesystem, path = _opened(address)
        if any(mark in path for mark in _PATTERN) and not filesystem.exists(path):
            found = sorted(filesystem.glob(path))
        elif filesystem.info(path)["type"] == "file":
            return [address]
        else:
            found = sorted(each for each in filesystem.find(path) if PurePosixPath(each).suffix.lower() in endings)
    if not found:
        raise VideoError(f"{address}: no video lies there; known are {' '.join(sorted(endings))}")
    scheme = address.partition("://")[0]
    return [f"{scheme}://{each}" for each in found]


@contextmanager
def fetched(stored: StoredObject) -> Iterator[Path]:
    """A copy of an object, and of the subtitles that lie beside it, for as long as it is worked with.

    Raises:
        VideoError: It cannot be fetched, or has changed.
    """
    place = cache_folder("objects") / "work"
    make_folders(place)
    host = socket.gethostname()
    for left in place.iterdir():
        owner, _, process = left.name.rpartition("-")[0].rpartition("-")  # names of machines have hyphens, too
        if owner == host and not _is_alive(process):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{host}-{os.getpid()}-", dir=place) as name:
        file = Path(name) / stored.name
        _copy_subtitles(_subtitles_beside(stored.address), file)
        _copy(stored, file)
        yield file


def kept(addresses: Sequence[str]) -> list[Path]:
    """Copies of objects as they are now, which stay for the next time until others need their room.

    All that are worked with at once are asked for at once, so that none makes room for another. What was used in the
    last `IN_USE` seconds stays, too, and the copies may then take more than `KEPT_BYTES`.

    Raises:
        VideoError: One cannot be fetched.
    """
    wanted = [look_up(address) for address in addresses]
    for stored in wanted:
        make_folders(stored.folder)
        (stored.folder / _USED).write_text(stored.name)
    spared = {stored.folder for stored in wanted}
    for stored in wanted:
        file = stored.folder / stored.name
        _bring_subtitles(stored, file)
        if not file.exists():
            _make_room(stored.size, spared)
            _copy(stored, file)
    return [stored.folder / stored.name for stored in wanted]


def _bring_subtitles(stored: StoredObject, file: Path) -> None:
    """Have the subtitles beside a copy be those that lie beside its object now."""
    beside, known = _subtitles_beside(stored.address), stored.folder / _SUBTITLES
    state = sha256_json(beside)
    if known.exists() and known.read_text() == state:
        return
    _copy_subtitles(beside, file)
    for suffix in {*SUFFIXES} - {PurePosixPath(address).suffix for address in beside}:
        file.with_suffix(suffix).unlink(missing_ok=True)
    known.write_text(state)


def _make_room(size: int, spared: Collection[Path]) -> None:
    """Delete the copies that were unused for longest, outside some folders, until there is room for one of a size."""
    marks = sorted((mark.stat().st_mtime, mark) for mark in cache_folder("objects").glob(f"*/{_USED}"))
    copies = [(used, copy) for used, mark in marks if (copy := mark.parent / mark.read_text()).exists()]
    taken = size + sum(copy.stat().st_size for _, copy in copies)
    for used, copy in copies:
        if taken <= KEPT_BYTES or time.time() - used < IN_USE:
            return
        if copy.parent not in spared:
            taken -= copy.stat().st_size
            copy.unlink(missing_ok=True)


def _subtitles_beside(address: str) -> dict[str, str]:
    """The states of the subtitles that are called as an object is, by their addresses."""
    stem = address.removesuffix(PurePosixPath(address).suffix)
    states = {}
    for beside in (stem + suffix for suffix in SUFFIXES):
        with _explained(beside):
            filesystem, path = _opened(beside)
            if filesystem.exists(path):
                states[beside] = _state_of(beside, filesystem.info(path))
    return states


def _state_of(address: str, info: dict[str, Any]) -> str:
    stamp = next((str(info[name]) for name in _STAMPS if info.get(name)), "")
    return sha256_json([address, info["size"], stamp])


def _copy_subtitles(addresses: Collection[str], file: Path) -> None:
    """Copy subtitles to where a copy of their object is or comes."""
    for beside in addresses:
        with _explained(beside), replacing(file.with_suffix(PurePosixPath(beside).suffix)) as part:
            filesystem, path = _opened(beside)
            filesystem.get_file(path, str(part))


def _copy(stored: StoredObject, file: Path) -> None:
    """Copy an object, whole or not at all."""
    with _explained(stored.address), replacing(file) as part:
        filesystem, path = _opened(stored.address)
        filesystem.get_file(path, str(part))
        if part.stat().st_size != stored.size or look_up(stored.address) != stored:
            raise VideoError(f"{stored.address}: the object changed while it was fetched; wait until it is complete")


def _opened(address: str) -> tuple[Any, str]:
    """The store of an address, of which nothing is remembered, and the path in it."""
    with extra("objects"):
        import fsspec
        import s3fs  # noqa: F401
    settings = _s3_settings() if address.startswith("s3://") else {}
    filesystem, path = fsspec.core.url_to_fs(address, use_listings_cache=False, **settings)
    return filesystem, path


def _s3_settings() -> dict[str, Any]:
    """Those of the environment, by the names that LanceDB knows, as s3fs takes them."""
    client = {
        "endpoint_url": _variable("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
        "region_name": _variable("AWS_REGION", "AWS_DEFAULT_REGION"),
    }
    is_anonymous = (_variable("AWS_SKIP_SIGNATURE") or "").lower() in ("1", "true", "yes", "on")
    return {"anon": is_anonymous, "client_kwargs": {name: value for name, value in client.items() if value}}


def _variable(*names: str) -> str | None:
    """The first of some variables of the environment that says something."""
    return next((value for name in names if (value := os.environ.get(name))), None)


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Has whatever a store raises name the address; every kind of store has errors of its own."""
    try:
        yield
    except (VideoError, MissingExtraError):
        raise
    except FileNotFoundError as error:
        where = "the variables of the environment that say where the store is (AWS_ENDPOINT)"
        raise VideoError(f"{address}: there is no such object; check the address, and {where}") from error
    except PermissionError as error:
        raise VideoError(f"{address}: the store denies access; check the keys in the environment") from error
    except Exception as error:
        raise VideoError(f"{address}: cannot be fetched: {cause_of(error)}") from error
