"""What a disk may hold after a process was killed, and after the machine lost its power, from a log of steps.

`shim.c` writes the log. Of a killed process every step stays, as the operating system has it. After a loss of power
only that is certain which was synchronised, as POSIX has it: the content of a file by its own `fsync`, its name by its
folder's. Of all else each step may be there or not, a write also in part or as zeros, whatever came after it.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import struct
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

Contents = dict[str, bytes | None]
"""What a folder holds, by path; None stands for a folder."""

_OF_TEMPFILE = re.compile(r"\.tmp\w{6}")
_HEAD = struct.Struct("=cIIIq")
_SHIM = Path(__file__).with_name("shim.c")


@dataclass(frozen=True)
class Step:
    """A step of a log.

    Attributes:
        kind: W(rite), T(runcate), F(sync), C(reate), M(ake folder), R(ename), L(ink), U(nlink), A(cknowledge).
        path: Of the file or folder.
        other: Second path of a renaming or link.
        offset: Of a write; size of a truncation.
        data: What was written or acknowledged.
    """

    kind: str
    path: str
    other: str
    offset: int
    data: bytes


def compile_shim(folder: Path) -> Path:
    """The library to load before libc, made from `shim.c`.

    Raises:
        ValueError: There is no C compiler.
    """
    library = folder / "shim.so"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise ValueError("killing at every step needs a C compiler: install gcc")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, _SHIM, "-ldl"], check=True)
    return library


class Recorder:
    """Logs this process's steps; only in a process that was started with the shim.

    Args:
        folder: Under which steps count; without symbolic links in its path.
        log: File to write.
        last: Before which step the process ends; 0 for never.
        torn: Whether half of the last step happens if it is a write.
    """

    def __init__(self, folder: Path, log: Path, last: int = 0, torn: bool = False) -> None:
        self._shim = ctypes.CDLL(None)
        self._file = log.open("wb")
        self._shim.shim_arm(str(folder).encode(), self._file.fileno(), ctypes.c_long(last), int(torn))

    def acknowledge(self, text: str) -> None:
        """Writes down what the caller was told to be kept."""
        self._shim.shim_note(text.encode())


def read_log(log: Path) -> Iterator[Step]:
    """The steps of a log, but for a last one that a kill cut off."""
    content, at = log.read_bytes(), 0
    while at + _HEAD.size <= len(content):
        kind, path, other, size, offset = _HEAD.unpack_from(content, at)
        parts, at = [], at + _HEAD.size
        for length in (path, other, size):
            parts.append(content[at : at + length])
            at += length
        if at <= len(content):
            yield Step(kind.decode(), parts[0].decode(), parts[1].decode(), offset, parts[2])


def acknowledged(steps: list[Step]) -> list[str]:
    """What was acknowledged, in its order."""
    return [step.data.decode() for step in steps if step.kind == "A"]


@dataclass
class _File:
    """A file's content on the disk, and the writes and truncations that no `fsync` has followed."""

    durable: bytes = b""
    pending: list[Step] = field(default_factory=list)

    def content(self) -> bytes:
        content = bytearray(self.durable)
        for step in self.pending:
            _apply(content, step)
        return bytes(content)

    def after_loss(self, random: Random, kept: float) -> bytes:
        content = bytearray(self.durable)
        for step in self.pending:
            if random.random() < kept:
                _apply(content, step)
            elif step.kind == "W" and (part := random.choice(("none", "start", "zeros"))) != "none":
                end = random.randrange(len(step.data) + 1) if part == "start" else 0
                zeros = b"" if part == "start" else bytes(len(step.data))
                _apply(content, Step("W", step.path, "", step.offset, step.data[:end] + zeros))
        return bytes(content)


def _apply(content: bytearray, step: Step) -> None:
    if step.kind == "T":
        content[step.offset :] = bytes(max(0, step.offset - len(content)))
    else:
        content.extend(bytes(max(0, step.offset - len(content))))
        content[step.offset : step.offset + len(step.data)] = step.data


_Names = dict[str, "_File | None"]
"""Files by their paths; None stands for a folder."""


class Disk:
    """A folder as the operating system shows it, and what of it is on the disk for certain.

    Args:
        root: The folder; all that is in it now is on the disk.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: _Names = {
            str(path): None if path.is_dir() else _File(path.read_bytes()) for path in sorted(root.rglob("*"))
        }
        self._durable = dict(self._names)
        self._pending: list[tuple[Step, _File | None]] = []

    def apply(self, step: Step) -> None:
        """Takes a step."""
        if step.kind in "WTFRLU":
            self._take_unseen_renaming(step.path)
        if step.kind in "WT":
            self._open_file(step.path).pending.append(step)
        elif step.kind == "F":
            self._synchronise(step.path)
        elif step.kind in "CMRLU":
            new = _File() if step.kind == "C" else None
            _rename(self._names, step, new)
            self._pending.append((step, new))

    def settle(self, paths: Iterable[str]) -> None:
        """Takes the renamings that the log has not seen, by the paths that are there."""
        for path in paths:
            self._take_unseen_renaming(path)

    def _take_unseen_renaming(self, path: str) -> None:
        """Rust's `tempfile`, of LanceDB and safetensors, renames its files by system calls that pass by libc."""
        if path in self._names or path == str(self.root):
            return
        beside = [name for name in self._names if Path(name).parent == Path(path).parent]
        hidden = [name for name in beside if _OF_TEMPFILE.fullmatch(Path(name).name)]
        if len(hidden) == 1:
            self.apply(Step("R", hidden[0], path, 0, b""))

    def after_kill(self) -> Contents:
        """What is there."""
        return {path: file.content() if file else None for path, file in self._names.items()}

    def after_loss(self, random: Random) -> Contents:
        """What may be there after a loss of power."""
        kept_names, kept_data = random.choice((0.0, 0.5, 1.0)), random.choice((0.0, 0.5, 1.0))
        names = dict(self._durable)
        for step, new in self._pending:
            if random.random() < kept_names:
                _rename(names, step, new)
        there = {path for path in names if all(str(p) in names for p in Path(path).parents if self.root in p.parents)}
        # Two names of one file show one content.
        contents = {id(file): file.after_loss(random, kept_data) for file in names.values() if file}
        return {path: contents[id(file)] if file else None for path, file in sorted(names.items()) if path in there}

    def _open_file(self, path: str) -> _File:
        file = self._names.get(path.removesuffix(" (deleted)"))
        if file is None:  # a file whose name is gone: nobody sees what is written
            return _File()
        return file

    def _synchronise(self, path: str) -> None:
        file = self._names.get(path)
        if file is not None:
            file.durable, file.pending = file.content(), []
            return
        rest = []
        for step, new in self._pending:
            if path in {str(Path(name).parent) for name in (step.path, step.other) if name}:
                _rename(self._durable, step, new)
            else:
                rest.append((step, new))
        self._pending = rest


def _rename(names: _Names, step: Step, new: _File | None) -> None:
    """Changes names as a step does; one that rests on another that is not there changes nothing."""
    if step.kind in "CM":
        names[step.path] = new
    elif step.path in names and step.kind == "U":
        del names[step.path]
    elif step.path in names and step.kind == "L":
        names[step.other] = names[step.path]
    elif step.path in names:
        inside = [path for path in names if path == step.path or path.startswith(f"{step.path}/")]
        for path in inside:
            names[step.other + path[len(step.path) :]] = names.pop(path)


def put_back(root: Path, contents: Contents) -> None:
    """Makes a folder hold exactly this."""
    shutil.rmtree(root)
    root.mkdir()
    for path, content in sorted(contents.items()):
        if content is None:
            Path(path).mkdir()
        else:
            Path(path).write_bytes(content)


def contents_of(root: Path) -> Contents:
    """What a folder holds."""
    return {str(path): None if path.is_dir() else path.read_bytes() for path in sorted(root.rglob("*"))}
