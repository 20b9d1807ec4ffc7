"""Files of rows, read one row at a time: JSON lists, JSON lines, parquet, and manifests of `marc.data.sampling`.

A file of rows is somebody else's. Whatever is in it, readers raise a `ValueError` that names the file and the row, and
no more of it is in memory than a row and a block, but of a manifest, which is one JSON object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from marc.extras import extra
from marc.io import parse_json, read_json

_BLOCK = 1 << 20
_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True)
class UnreadableRow:
    """Stands for a line that is no JSON, where the lines after it may be.

    Attributes:
        problem: What is wrong with it.
    """

    problem: str


def raw_rows(path: str | Path) -> Iterator[Any]:
    """The raw rows of a ``.json`` (a list, or an object with ``rows``), ``.jsonl`` or ``.parquet`` file, one by one.

    Yields:
        Values of any JSON type; an `UnreadableRow` for a line of a ``.jsonl`` that is none.

    Raises:
        ValueError: If there is no such file, or it is not what its name says.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file of rows")
    if file.suffix == ".parquet":
        yield from _parquet_rows(file)
    elif file.suffix == ".jsonl":
        yield from _lines(file)
    elif is_manifest(file):
        yield from _manifest_rows(file)
    else:
        yield from _list_rows(file)


def load_rows(path: str | Path) -> list[Any]:
    """All `raw_rows` of a file in which every line can be read.

    Raises:
        ValueError: As `raw_rows`, and for the first line that is no JSON.
    """
    rows = []
    for row in raw_rows(path):
        if isinstance(row, UnreadableRow):
            raise ValueError(f"{path}: {row.problem}")
        rows.append(row)
    return rows


def is_manifest(file: Path) -> bool:
    """Whether a JSON file is one object, as manifests are."""
    if file.suffix != ".json":
        return False
    with file.open("rb") as content:
        return content.read(_BLOCK).lstrip().startswith(b"{")


def _lines(file: Path) -> Iterator[Any]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield parse_json(line, f"line {number}")
                except ValueError as error:
                    yield UnreadableRow(str(error))


def _manifest_rows(file: Path) -> Iterator[Any]:
    rows = read_json(file).get("rows")
    if not isinstance(rows, list):
        raise ValueError(f"{file}: expected a list of rows, or a manifest with 'rows'")
    yield from rows


def _list_rows(file: Path) -> Iterator[Any]:
    number = 0
    try:
        with file.open(encoding="utf-8") as text:
            for row in _ListReader(text):
                yield row
                number += 1
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 ({error.reason})") from error
    except RecursionError as error:
        raise ValueError(f"{file}, row {number}: nested too deeply to be read") from error
    except ValueError as error:
        raise ValueError(f"{file}, row {number}: {error}") from error


class _ListReader:
    """The values of a JSON list, decoded one by one.

    Args:
        file: The list.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._at = 0

    def __iter__(self) -> Iterator[Any]:
        if self._mark() != "[":
            raise ValueError("expected a list of rows, or a manifest with 'rows'")
        self._at += 1
        if self._mark() != "]":
            yield self._value()
            while self._mark() == ",":
                self._at += 1
                yield self._value()
        if self._mark() != "]":
            raise ValueError("not valid JSON (a list goes on with ',' or ends with ']')")
        self._at += 1
        if self._mark():
            raise ValueError("not valid JSON (something follows the list)")

    def _value(self) -> Any:
        self._mark()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._read():
                    continue
                raise ValueError(f"not valid JSON ({error.msg})") from error
            if end < len(self._text) or not self._read():  # what ends with the block may be half a number
                self._at = end
                return value

    def _mark(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read():
                return ""

    def _read(self) -> bool:
        """Takes in another block, at least as much as is still to be decoded; whether there was one."""
        rest = self._text[self._at :]
        block = self._file.read(max(_BLOCK, len(rest)))
        self._text, self._at = rest + block, 0
        return bool(block)


def _parquet_rows(file: Path) -> Iterator[Any]:
    with extra("eval"):
        from pyarrow import parquet
    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches():
                yield from batch.to_pylist()
    except OSError:
        raise
    except Exception as error:  # Arrow's errors have no type in common
        raise ValueError(f"{file}: not a parquet file that can be read ({type(error).__name__}: {error})") from error
