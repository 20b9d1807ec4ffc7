"""Where the files of rows are, seen from a file that is written of them: it is to work where it lies."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from marc.data.rows import TrainingRow


@dataclass(frozen=True)
class Placement:
    """Where the paths of rows start in the file that is read, and in the one that is written.

    If both lie in one folder, paths stay as they are; otherwise they are rewritten, so that the written file finds
    what the read one does: relative to its folder where the files are below that, absolute elsewhere. A folder that
    the user named holds for both, and paths stay.

    Attributes:
        rows: The file that is read.
        output: The file to write.
        named: The folder of the files that the user named; None: that of ``rows``.
    """

    rows: Path
    output: Path
    named: Path | None = None

    @property
    def folder(self) -> Path:
        """Where paths start as they are read."""
        return self.named or self.rows.parent

    @property
    def root(self) -> Path:
        """Where paths start as they are written."""
        return self.named or self.output.parent

    def place(self, row: TrainingRow) -> TrainingRow:
        """A row as it is written."""
        within = self._within()
        if row.path is None or within == Path() or os.path.isabs(row.path):
            return row
        path = Path(within or os.path.abspath(self.folder), row.path)
        return replace(row, path=path.as_posix())

    def remark(self) -> str | None:
        """What whoever reads the written file must name; None if nothing."""
        if self._within() is None:
            return (
                f"{self.output}: its paths are absolute, as {self.folder} is not below its folder; "
                f"read it with --root {self.folder}"
            )
        if self.named is not None and not _is_same(self.named, self.output.parent):
            return f"{self.output}: its paths start from {self.named}; read it with --root {self.named}"
        return None

    def _within(self) -> Path | None:
        """The folder as seen from that of the written file; the empty path if it is the same; None: not below it."""
        if self.named is not None or _is_same(self.folder, self.root):
            return Path()
        for whole in (os.path.abspath, os.path.realpath):
            folder, output = Path(whole(self.folder)), Path(whole(self.root))
            if folder.is_relative_to(output):
                return folder.relative_to(output)
        return None


def _is_same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
