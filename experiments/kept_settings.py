"""An experiment's folder goes on with the settings that it was made with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marc.io import write_json


def keep_settings(settings: Mapping[str, Any], output: Path) -> None:
    """Writes settings, or compares them with those that the folder was made with.

    Args:
        settings: What JSON can hold.
        output: The folder.

    Raises:
        ValueError: If the folder holds another experiment.
    """
    file = output / "settings.json"
    values = json.loads(json.dumps(settings))
    if not file.exists():
        write_json(file, values)
    before = json.loads(file.read_text(encoding="utf-8"))
    if before != values:
        changed = [name for name in values if before.get(name) != values[name]]
        raise ValueError(f"{output} holds an experiment with other {', '.join(changed)}; choose another --output")
