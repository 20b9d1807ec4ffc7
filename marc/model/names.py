"""Whether a name can be a checkpoint, said before anything heavy is imported; files are looked at, not read."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open

from marc.hub import hub_answers, is_downloaded
from marc.io import read_json

EMBEDDED = "tiny"
"""Name of the embedded model."""
POINTER = b"version https://git-lfs"
"""How a file begins that stands for one that Git LFS has not fetched."""
CONFIGURATIONS = ("config.json", "adapter_config.json")
"""By which the folder of a checkpoint, or of adapters, is known."""
PUBLISHED = (
    *(f"Qwen/Qwen2.5-VL-{size}-Instruct" for size in ("3B", "7B", "32B", "72B")),
    *(
        f"Qwen/Qwen3-VL-{size}-{kind}"
        for size in ("2B", "4B", "8B", "32B", "30B-A3B")
        for kind in ("Instruct", "Thinking")
    ),
    *(f"Qwen/Qwen3.5-{size}" for size in ("0.8B", "2B", "4B", "9B", "27B")),
)
"""Names of the hub that people mean who misspell one."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def check_name(name: str) -> None:
    """Refuses what can be no checkpoint, without waiting for the hub.

    Args:
        name: The embedded model, a folder or a hub name.

    Raises:
        ValueError: Saying what it might have been.
    """
    if name == EMBEDDED:
        return
    folder = Path(name)
    if folder.is_dir() and name:
        _check_folder(folder)
        return
    known = f"a local folder with a checkpoint, a model name of the hub that can be reached, or {EMBEDDED!r}"
    if folder.is_file():
        raise ValueError(f"cannot load the model {name!r}: it is a file; name the folder that holds config.json")
    if difflib.get_close_matches(name.lower(), [EMBEDDED], cutoff=0.5):
        raise ValueError(f"cannot load the model {name!r}: did you mean {EMBEDDED!r}? It must be {known}")
    if name.count("/") != 1 or name.startswith((".", "~", "/")):
        raise ValueError(f"cannot load the model {name!r}: there is no such folder; it must be {known}")
    if not is_downloaded(name, "config.json") and not hub_answers():
        raise ValueError(
            f"cannot load the model {name!r}: it is not among the downloaded ones and the hub cannot be reached; "
            f"{did_you_mean(name)}it must be {known}"
        )


def did_you_mean(name: str) -> str:
    """A published checkpoint whose name is like one that cannot be found, as words of a message; empty if none is."""
    alike = difflib.get_close_matches(name, PUBLISHED, n=1, cutoff=0.8)
    return f"did you mean {alike[0]!r}? " if alike and alike[0] != name else ""


def _check_folder(folder: Path) -> None:
    if not any((folder / name).is_file() for name in CONFIGURATIONS):
        raise ValueError(f"{folder}: there is no config.json in it; name the folder of a checkpoint")
    weights = sorted(folder.glob("*.safetensors"))
    for file in weights:
        with file.open("rb") as content:
            if content.read(len(POINTER)) == POINTER:
                raise ValueError(f"{file}: stands for a file that Git LFS has not fetched; run git lfs pull")
        try:
            with safe_open(file, "np") as tensors:
                tensors.keys()
        except SafetensorError as error:
            raise ValueError(f"{file}: cut or damaged ({error}); copy or download it again") from None
    _check_index(folder)
    pickles = [file for pattern in PICKLES for file in sorted(folder.glob(pattern))]
    if pickles and not weights and (folder / "config.json").is_file():
        raise ValueError(
            f"{pickles[0]}: weights in Python's pickle format, which can run code when they are read, are not loaded; "
            "save them as model.safetensors"
        )


def _check_index(folder: Path) -> None:
    """Refuses an index that names files that are not there."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        names = {str(name) for name in read_json(index)["weight_map"].values()}
        there = {name for name in names if os.path.isfile(folder / name)}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index}: no index of weights ({error})") from None
    if outside := sorted(name for name in names if Path(name).name != name):
        raise ValueError(f"{index}: {', '.join(outside)} is no name of a file beside it")
    if missing := sorted(names - there):
        raise ValueError(f"{index}: {', '.join(missing)} is not there; copy or download it")
