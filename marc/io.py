"""Files that are written whole or not at all, and hashes of what files and values hold.

Nothing else in the package replaces files or computes checksums. A process that is killed while it writes leaves the
file as it was, and beside it a hidden one that a later writer to the same folder clears.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from stat import S_IMODE
from typing import IO, TYPE_CHECKING, Any

from marc.extras import MissingExtraError

if TYPE_CHECKING:
    from torch import Tensor

_TEMPORARY = ".marc-tmp"
_LEFTOVER_SECONDS = 3600.0
_BLOCK_BYTES = 1 << 20


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A file to fill that takes the place of another in one step, durably, when the block ends without an error.

    Others may read it as they may any new file, also if whoever fills it makes files for their owner alone.

    Args:
        path: The file to replace; its folder is made if there is none.

    Yields:
        A path in the same folder and with the same extension, for whoever insists on opening a file by its name.

    Raises:
        OSError: The folder cannot be written, or the disk is full; an older file of that name is still whole.
    """
    path = Path(path)
    make_folders(path.parent)
    clear_leftovers(path.parent)
    temporary = temporary_path(path.parent, path.suffix)
    with _naming(path):
        try:
            yield temporary
            open_as_usual(temporary)
            sync(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)


def temporary_path(folder: Path, suffix: str = "") -> Path:
    """A hidden file to fill before it is put in place; if it is left behind, `clear_leftovers` knows it."""
    return folder / f".{uuid.uuid4().hex}{_TEMPORARY}{suffix}"


def clear_leftovers(folder: Path, older_than: float = _LEFTOVER_SECONDS) -> None:
    """Deletes what killed writers have left in a folder, but nothing that another may still be filling.

    Args:
        folder: Where they are.
        older_than: Seconds since they were written; 0 where nobody else writes.
    """
    for leftover in folder.glob(f".*{_TEMPORARY}*"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime >= older_than:
                leftover.unlink()


def make_folders(folder: str | Path) -> None:
    """Make a folder that may be there, and those above it; what is durable in it is not lost with its name.

    Raises:
        OSError: It cannot be made, or is a file.
    """
    folder = Path(folder)
    missing = [each for each in (folder, *folder.parents) if not each.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync(each.parent)


def make_durable(folder: str | Path) -> None:
    """Have the disk hold a folder that others have filled: its files, their names and its own.

    What another process renames or deletes meanwhile is left to it.
    """
    folder = Path(folder)
    for path in paths_below(folder):
        with suppress(FileNotFoundError):
            sync(path)
    for path in (folder, folder.parent):
        sync(path)


def paths_below(folder: str | Path) -> Iterator[Path]:
    """Files and folders below a folder, also while other processes make and delete some.

    Raises:
        FileNotFoundError: The folder is gone at the end.
    """
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*files, *folders))
    os.stat(folder)


def size_below(folder: str | Path) -> int:
    """Bytes of all files below a folder; those that another process deletes meanwhile do not count."""
    size = 0
    for path in paths_below(folder):
        with suppress(FileNotFoundError):
            size += path.stat().st_size if path.is_file() else 0
    return size


def open_as_usual(path: str | Path) -> None:
    """Gives a file that was made for its owner alone, as libraries make temporary ones, the rights of a new file.

    These are what the umask and the folder leave; a file that others may use in any way is left as it is.
    """
    path = Path(path)
    own = S_IMODE(path.stat().st_mode)
    if own & 0o077:
        return
    usual = temporary_path(path.parent)
    try:
        usual.touch(exist_ok=False)
        wanted = S_IMODE(usual.stat().st_mode)
        if wanted != own:
            path.chmod(wanted)
    finally:
        usual.unlink(missing_ok=True)


def put_in_place(finished: str | Path, path: str | Path) -> None:
    """Moves a finished file to where it belongs, in the same file system, durably and in one step.

    Raises:
        OSError: It cannot be moved; a file that was there is still whole.
    """
    open_as_usual(finished)
    sync(Path(finished))
    os.replace(finished, path)
    sync(Path(path).parent)


def write_atomically(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Have ``write`` fill a new file and put it in the place of ``path`` in one step, durable when this returns.

    Raises:
        OSError: The folder cannot be written, or the disk is full; an older file of that name is still whole.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        write(file)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file in one step."""
    write_atomically(path, lambda file: file.write(content))


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text in one step."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any, *, indent: int | None = 1) -> None:
    """Write a value as JSON in one step."""
    text = json.dumps(value, indent=indent, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode(errors="backslashreplace"))  # JSON reads half a surrogate pair that is written so


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a file, durable when this returns; `whole_lines` reads back what a full disk or a kill has left.

    Raises:
        OSError: It cannot be written, for instance because the disk is full; the file is named.
    """
    append_bytes(path, f"{line}\n".encode())


def append_bytes(path: str | Path, content: bytes) -> None:
    """Add bytes to a file, which is made if there is none, durable when this returns.

    Raises:
        OSError: As `append_line`; a part of them may have been written.
    """
    with _naming(path), Path(path).open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if file.tell() == len(content):
            sync(Path(path).parent)


def cut_off(path: str | Path, length: int) -> None:
    """Takes away what a file holds behind so many bytes, durably."""
    with _naming(path), Path(path).open("r+b") as file:
        file.truncate(length)
        os.fsync(file.fileno())


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Has an error of the operating system that names no file, as that of a full disk, name this one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def parse_json(text: str | bytes, where: str | Path) -> Any:
    """A value from JSON that somebody else wrote.

    Args:
        text: The JSON; bytes are UTF-8.
        where: File, and line if it has several values, for the message.

    Raises:
        ValueError: It is no JSON, no UTF-8, or nested so deeply that it cannot be read.
    """
    try:
        return json.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from error
    except RecursionError as error:
        raise ValueError(f"{where}: nested too deeply to be read") from error
    except ValueError as error:  # also of a number with thousands of digits
        raise ValueError(f"{where}: not valid JSON ({error})") from error


def read_json(path: str | Path) -> Any:
    """A value from a JSON file that somebody else wrote.

    Raises:
        ValueError: As `parse_json`, naming the file.
        OSError: It is not there, or cannot be read.
    """
    return parse_json(Path(path).read_bytes(), path)


def message_of(error: BaseException) -> str:
    """What an error says to a user: of one of the operating system, first the file and then the cause."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    names = (error.filename, error.filename2)
    files = [os.fsdecode(name) for name in names if isinstance(name, str | bytes | os.PathLike)]
    return f"{' -> '.join(files)}: {error.strerror}" if files else error.strerror


def cause_of(error: BaseException) -> str:
    """As `message_of`; the class of an error is named where its text was not written for users."""
    is_told = isinstance(error, ValueError | OSError)
    return message_of(error) if is_told else f"{type(error).__name__}: {error}"


@contextmanager
def reading(name: str, part: str) -> Iterator[None]:
    """Turns whatever goes wrong while a part of a model is read into a `ValueError` that names both."""
    try:
        yield
    except MissingExtraError:
        raise
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}: its {part} cannot be read: {_line(error)}") from error
    except ValueError as error:
        raise error if _names(error, name) else ValueError(f"{name}: {_line(error)}") from error
    except Exception as error:
        raise ValueError(f"{name}: its {part} cannot be read: {_line(error)}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of libraries in Rust, which is no Exception
            raise
        raise ValueError(f"{name}: its {part} cannot be read: {_line(error)}") from error


def _names(error: ValueError, name: str) -> bool:
    """Whether an error already says which model it is about, or which file of it."""
    place = str(error).split(": ")[0]
    return any(said in f"/{place}/" for said in (f"/{name.rstrip(chr(47))}/", repr(name)))


def _line(error: BaseException) -> str:
    """What an error says, in one line; what says next to nothing gets its kind in front."""
    text = " ".join(message_of(error).split()).replace(": TypeError: ", ": ").replace(": ValueError: ", ": ")
    text = text if " " in text else f"{type(error).__name__}: {text}"
    return text if len(text) <= 500 else text[:497] + "..."


def numbers_in(folder: str | Path) -> int:
    """How many weights the ``*.safetensors`` of a folder hold, by their headers; other files do not count.

    Raises:
        SafetensorError: One is cut or damaged.
    """
    from safetensors import safe_open

    held = 0
    for file in Path(folder).glob("*.safetensors"):
        with safe_open(file, "np") as tensors:
            held += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return held


def whole_lines(path: str | Path) -> list[bytes]:
    """The lines of a file to which lines are appended; one that a kill or a loss of power cut off is left out."""
    return _without_torn_line(Path(path).read_bytes()).split(b"\n")[:-1]


def drop_torn_line(path: str | Path) -> None:
    """Takes away the end of a file that was cut off in the middle of a line; there need be no file."""
    path = Path(path)
    text = path.read_bytes() if path.exists() else b""
    whole = _without_torn_line(text)
    if len(whole) < len(text):
        with path.open("r+b") as file:
            file.truncate(len(whole))
        sync(path)


def _without_torn_line(text: bytes) -> bytes:
    """Lines but for a last one that does not end, or of which the disk holds a part as zeros, which no line has."""
    whole = text[: text.rfind(b"\n") + 1]
    last = whole[whole.rfind(b"\n", 0, -1) + 1 :]
    return whole.removesuffix(last) if b"\0" in last else whole


def sealed(mark: bytes, body: bytes) -> bytes:
    """The bytes of a file of a format of our own: a line that says which, one with the body's SHA-256, the body."""
    return b"%s\n%s\n%s" % (mark, sha256_of(body).encode(), body)


def unsealed(mark: bytes, content: bytes) -> bytes:
    """The body of what `sealed` gave.

    Raises:
        ValueError: It is of another format, or not the bytes that were written.
    """
    begin, _, rest = content.partition(b"\n")
    digest, _, body = rest.partition(b"\n")
    if begin != mark:
        raise ValueError(f"it does not begin with {mark.decode()!r}")
    if sha256_of(body).encode() != digest:
        raise ValueError("its checksum differs")
    return body


def sha256_stream(parts: Iterable[str | bytes]) -> str:
    """SHA-256 of texts (as UTF-8) and bytes one after another, in hexadecimal digits.

    Where a part ends does not count: parts whose ends matter must say so themselves.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def sha256_of(*parts: str | bytes) -> str:
    """As `sha256_stream`, of a few parts."""
    return sha256_stream(parts)


def file_state(path: str | Path) -> tuple[int, ...]:
    """What tells a file from what it was before: device, inode, size, and when it and its entry were changed last.

    Raises:
        OSError: It cannot be looked at.
    """
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a whole file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return sha256_stream(iter(lambda: file.read(_BLOCK_BYTES), b""))


def sha256_json(value: Any) -> str:
    """SHA-256 of a value as JSON with sorted keys, in hexadecimal digits."""
    return sha256_of(json.dumps(value, sort_keys=True))


def sha256_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, shapes, types and bytes of tensors in their order, in hexadecimal digits."""
    return sha256_stream(part for name, tensor in tensors.items() for part in _parts_of(name, tensor))


def _parts_of(name: str, tensor: Tensor) -> tuple[str, bytes]:
    import torch

    described = json.dumps([name, list(tensor.shape), str(tensor.dtype)])
    return described, tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def sync(path: Path) -> None:
    """Have the disk hold what was written to a file, or which files a folder names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
