"""Which kind of model a name is of, and that model: the one list of what can embed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from marc.io import reading
from marc.memory.encoders.checkpoint import CONFIGURATION, check_reachable, hub_folder, model_type
from marc.memory.encoders.dual_encoder import HUB, checked_folder, folder_of, listed, load_dual_encoder
from marc.memory.encoders.interface import Encoder, TextEncoder
from marc.memory.text_tower import CONFIG_FILE, read_text_encoder

KINDS = {
    "siglip": "marc.memory.encoders.siglip:Siglip",
    "siglip2": "marc.memory.encoders.siglip:Siglip",
    "qwen3_vl": "marc.memory.encoders.qwen3_vl:Qwen3VLEmbedding",
    "videoprism": "marc.memory.encoders.videoprism:VideoPrism",
}
"""Model types of transformers' configurations, and what reads them."""
LOADABLE = (
    f"embedders are open_clip's dual encoders ({CONFIG_FILE}), and of transformers' format ({CONFIGURATION}) "
    "SigLIP and SigLIP 2, Qwen3-VL-Embedding, VideoPrism with a text tower"
)


def load_text_encoder(name_or_folder: str | Path) -> TextEncoder | None:
    """The text tower of a folder by itself, where that is quicker; None where both towers are to be loaded."""
    folder = folder_of(name_or_folder)
    with reading(str(name_or_folder), "text tower"):
        return read_text_encoder(folder, str(name_or_folder)) if folder.is_dir() else None


def load_encoder(name_or_folder: str | Path) -> Encoder:
    """Loads a model of any kind with its weights; see `EventEmbedder.from_pretrained`.

    Raises:
        ValueError: The model is unknown, or its weights are missing, unreachable or do not fit its configuration.
    """
    check_listed(name_or_folder)
    name, folder = str(name_or_folder), folder_of(name_or_folder)
    if _is_repository(name) and not folder.is_dir():
        folder = hub_folder(name, (CONFIG_FILE, CONFIGURATION))
        if (folder / CONFIG_FILE).is_file():
            return load_dual_encoder(f"{HUB}{name}")
        _check_folder(folder, name)
        folder = hub_folder(name)
    if not folder.is_dir() or (folder / CONFIG_FILE).is_file():
        return load_dual_encoder(name_or_folder)
    module, _, kind = KINDS[model_type(folder)].partition(":")
    encoder: Encoder = getattr(import_module(module), kind).load(folder, name)
    return encoder


def check_listed(name_or_folder: str | Path) -> None:
    """Refuses what is neither a folder of a model that can embed nor the name of one, without loading anything.

    Raises:
        ValueError: Saying what it might have been, or what can be loaded.
    """
    name, folder = str(name_or_folder), folder_of(name_or_folder)
    if folder.is_dir():
        _check_folder(folder, str(folder))
    elif name == "tiny" or isinstance(name_or_folder, Path) or name.startswith((".", "/", "~")):
        raise ValueError(f"{folder}: no such folder; {LOADABLE}")
    elif _is_repository(name):
        check_reachable(name)
    elif not name.startswith(HUB):
        listed(name)


def _check_folder(folder: Path, name: str) -> None:
    if (folder / CONFIG_FILE).is_file():
        checked_folder(folder)
        return
    if not (folder / CONFIGURATION).is_file():
        raise ValueError(f"{name}: neither {CONFIG_FILE} nor {CONFIGURATION} in it; {LOADABLE}")
    with reading(name, CONFIGURATION):
        kind = model_type(folder)
    if kind not in KINDS:
        raise ValueError(f"{name}: {CONFIGURATION} is of {f'the type {kind!r}' if kind else 'no type'}; {LOADABLE}")


def _is_repository(name: str) -> bool:
    """Whether a name has the form of the hub's repositories."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~", HUB))
