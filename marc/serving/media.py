"""The videos and pictures of clients: by content in one folder, while there is room; or below allowed folders.

A file's name is the SHA-256 of its content, so that whoever sends it again finds it remembered, also after a restart.
Nothing is fetched from anywhere, and no path is opened that was not allowed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import threading
from collections import defaultdict
from collections.abc import AsyncIterable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from marc.io import clear_leftovers, put_in_place, sha256_file, temporary_path
from marc.memory.live import LiveSnapshot, StoredWatch
from marc.memory.live import watch_folder as watch_folder_of

MIB = 2**20
ID_LENGTH = 32
_ID = re.compile(rf"file-[0-9a-f]{{{ID_LENGTH}}}")
_REMEDIES = {
    "https": "have its host allowed with --allow-domain",
    "http": "name it by https and have its host allowed with --allow-domain",
}
"""What else helps against an address that is not fetched, by its scheme."""


class RefusedError(ValueError):
    """Something that a client may not do, or that there is not.

    Attributes:
        status: The HTTP status that says so.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class MediaStore:
    """Files that clients have sent.

    Args:
        folder: Where they are; it is made if there is none.
        max_file: Largest one in bytes.
        max_kept: All of them in bytes; the longest unused go first.
        allowed: Folders below which files may be named by their paths.
        watch_folder: Of watched sources that may be asked about; None: none may.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_file: int,
        max_kept: int,
        allowed: Sequence[Path] = (),
        watch_folder: Path | None = None,
    ) -> None:
        self.folder, self.memories, self.features = (folder / each for each in ("files", "memories", "features"))
        self._used = folder / "used"
        self._max_file, self._max_kept = max_file, max_kept
        self._allowed = [each.resolve(strict=True) for each in allowed]
        self._lock = threading.Lock()
        self._lent: dict[str, Path] = {}
        self._watch_folder = watch_folder
        self._watched: dict[str, StoredWatch] = {}
        for each in (self.folder, self.memories, self.features, self._used):
            each.mkdir(parents=True, exist_ok=True)
        for each in self._kinds:
            clear_leftovers(each)

    def find(self, url: str) -> Path:
        """The file that a client names: by content (``data:``), by what `add` called it, or by an allowed path.

        Raises:
            RefusedError: If it is none of these, too large, or not there.
        """
        if url.startswith("data:"):
            return self.path(self.add_data(url))
        if _ID.fullmatch(url):
            return self.path(url)
        parts = urlsplit(url)
        if parts.scheme in ("", "file") and parts.netloc in ("", "localhost"):
            return self._allowed_path(unquote(parts.path) if parts.scheme else url)
        remedy = _REMEDIES.get(parts.scheme, "have its folder allowed with --allow-path")
        raise RefusedError(
            f"addresses are not fetched ({parts.scheme}://…): send a data URL, upload the file to /v1/files, or "
            f"{remedy}"
        )

    def watched(self, name: str) -> LiveSnapshot:
        """What is known now of a source that is watched.

        Raises:
            RefusedError: There is none of this name that may be asked about.
        """
        with self._lock:
            try:
                if self._watch_folder is None:
                    raise ValueError(name)
                if name not in self._watched:
                    self._watched[name] = StoredWatch(watch_folder_of(name, self._watch_folder))
                return self._watched[name].snapshot()
            except ValueError as error:
                raise RefusedError(
                    f"nothing is watched under the name {name!r} that may be asked about", 404
                ) from error

    def path(self, name: str) -> Path:
        """Where a file is that was sent; from now on it is the one that was used last.

        Raises:
            RefusedError: If it is not there.
        """
        if (lent := self._lent.get(name)) is not None and lent.is_file():
            return lent
        return self._kept(name)

    def lend(self, content: str, path: Path) -> str:
        """Has a file that is elsewhere be found as if it had been sent; gives its name.

        Args:
            content: SHA-256 of what is in it.
            path: Where it is.
        """
        name = f"file-{content[:ID_LENGTH]}"
        self._lent[name] = path
        return name

    def _kept(self, name: str) -> Path:
        path = self.folder / name
        if not _ID.fullmatch(name) or not path.is_file():
            raise RefusedError(f"there is no file {name!r}; it may have made room for others: send it again", 404)
        (self._used / name).touch()  # not the file itself: by its times it is known to be what it was
        return path

    def add_data(self, url: str) -> str:
        """Keeps the content of a ``data:`` address; gives its name."""
        head, comma, text = url.partition(",")
        if not comma or not head.endswith(";base64"):
            raise RefusedError("a data URL of a video is data:video/mp4;base64,…")
        if len(text) * 3 // 4 > self._max_file:
            raise RefusedError(f"a file may have {self._max_file / MIB:.0f} MiB", 413)
        try:
            return self.add([base64.b64decode(text, validate=True)])
        except binascii.Error as error:
            raise RefusedError(f"the data URL holds no base64: {error}") from error

    def add(self, parts: Iterable[bytes]) -> str:
        """Keeps a file; gives its name."""
        with _Incoming(self.folder, self._max_file) as file:
            for part in parts:
                file.write(part)
        return self._keep(file)

    async def add_stream(self, parts: AsyncIterable[bytes]) -> str:
        """Keeps a file that comes in parts; gives its name."""
        with _Incoming(self.folder, self._max_file) as file:
            async for part in parts:
                file.write(part)
        return await asyncio.to_thread(self._keep, file)

    def remove(self, name: str) -> None:
        """Forgets a file and what was remembered of it.

        Raises:
            RefusedError: If it was not sent.
        """
        self._kept(name)
        with self._lock:
            self._drop(name)

    def make_room(self, besides: str) -> None:
        """Forgets the files that are unused for longest, with what was remembered of them, until the rest has room.

        Args:
            besides: Name of the one that stays.
        """
        with self._lock:
            sizes: dict[str, int] = defaultdict(int)
            for folder in self._kinds:
                for path in folder.glob("file-*"):
                    with suppress(FileNotFoundError):  # another server's, of the same folder
                        sizes[path.name.partition(".")[0]] += path.stat().st_size
            total = sum(sizes.values())
            for name in sorted(sizes, key=self._last_use):
                if total <= self._max_kept:
                    return
                if name != besides:
                    total -= sizes[name]
                    self._drop(name)

    @property
    def _kinds(self) -> tuple[Path, ...]:
        return self.folder, self.memories, self.features

    def _keep(self, file: _Incoming) -> str:
        try:
            name = f"file-{sha256_file(file.path)[:ID_LENGTH]}"
            with self._lock:
                if not (self.folder / name).exists():
                    put_in_place(file.path, self.folder / name)
                (self._used / name).touch()
        finally:
            file.path.unlink(missing_ok=True)
        self.make_room(besides=name)
        return name

    def _last_use(self, name: str) -> int:
        used = self._used / name
        return used.stat().st_mtime_ns if used.exists() else 0

    def _drop(self, name: str) -> None:
        for folder in self._kinds:
            for path in (folder / name, *folder.glob(f"{name}.*")):
                path.unlink(missing_ok=True)
        (self._used / name).unlink(missing_ok=True)

    def _allowed_path(self, named: str) -> Path:
        with suppress(OSError, ValueError):
            path = Path(named).resolve(strict=True)
            if path.is_file() and any(path.is_relative_to(folder) for folder in self._allowed):
                return path
        raise RefusedError("no such file below a folder that is allowed with --allow-path", 403)


class _Incoming:
    """A file that is being written; it goes away again unless it is moved."""

    def __init__(self, folder: Path, most: int) -> None:
        self.path = temporary_path(folder)
        self._most, self._size = most, 0

    def __enter__(self) -> _Incoming:
        self._file = self.path.open("wb")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._file.close()
        if kind is not None:
            self.path.unlink(missing_ok=True)

    def write(self, part: bytes) -> None:
        """Takes some more.

        Raises:
            RefusedError: If it is too much.
        """
        self._size += len(part)
        if self._size > self._most:
            raise RefusedError(f"a file may have {self._most / MIB:.0f} MiB", 413)
        self._file.write(part)
