"""Whether a path that a row names stays in the folder of its data set.

Rows come from elsewhere, and what they name is read. A path that leads out of the folder is refused unless the user
allows it. Symbolic links are followed: whoever owns the folder has made them, and a row cannot.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePath


def check_inside(path: str, folder: str | Path) -> None:
    """Refuses a path that leads out of a folder.

    Args:
        path: As a row has it; relative ones start from the folder, absolute ones may lie in it.
        folder: The data set's.

    Raises:
        ValueError: If it has ``..`` in it, or is absolute and somewhere else.
    """
    named = PurePath(path)
    inside = ".." not in named.parts and (
        not named.is_absolute()
        or any(named.is_relative_to(root(folder)) for root in (os.path.abspath, os.path.realpath))
    )
    if not inside:
        raise ValueError(
            f"the path {path!r} leads out of the data set's folder {str(folder)!r}: name another folder, or say "
            "--allow-outside if you trust the file of rows"
        )
