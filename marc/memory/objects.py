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
from collections.abc import Collection, Iterator
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
_STAMPS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime")
"""What stores call an object's ETag, or else the time of its last change."""
_PATTERN = "*?["
_NAME_BYTES = 200
_USED = ".used"


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
    stamp = next((str(info[name]) for name in _STAMPS if info.get(name)), "")
    return StoredObject(address, info["size"], sha256_json([address, info["size"], stamp]))


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
    ours = f"{socket.gethostname()}-"
    for left in place.glob(f"{ours}*"):
        if not _is_alive(left.name.removeprefix(ours).partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{ours}{os.getpid()}-", dir=place) as name:
        file = Path(name) / stored.name
        _copy(stored, file)
        yield file


def kept(address: str) -> Path:
    """A copy of an object as it is now, which stays for the next time until others need its room.

    Raises:
        VideoError: It cannot be fetched.
    """
    stored = look_up(address)
    file = stored.folder / stored.name
    make_folders(stored.folder)
    (stored.folder / _USED).write_text(stored.name)
    if not file.exists():
        _make_room(stored.size)
        _copy(stored, file)
    return file


def _make_room(size: int) -> None:
    """Delete the copies that were unused for longest until there is room for one of a size."""
    marks = sorted(cache_folder("objects").glob(f"*/{_USED}"), key=lambda mark: mark.stat().st_mtime)
    copies = [copy for mark in marks if (copy := mark.parent / mark.read_text()).exists()]
    taken = size + sum(copy.stat().st_size for copy in copies)
    for copy in copies:
        if taken <= KEPT_BYTES:
            return
        taken -= copy.stat().st_size
        copy.unlink(missing_ok=True)


def _copy(stored: StoredObject, file: Path) -> None:
    """Copy an object, whole or not at all, after the subtitles that are called as it is."""
    stem = stored.address.removesuffix(PurePosixPath(stored.address).suffix)
    for suffix in SUFFIXES:
        with _explained(stem + suffix):
            filesystem, path = _opened(stem + suffix)
            if filesystem.exists(path):
                filesystem.get_file(path, str(file.with_suffix(suffix)))
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
