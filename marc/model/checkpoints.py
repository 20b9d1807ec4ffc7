"""What can be wrong with a checkpoint, said before or instead of transformers' own errors: one line that names it.

A checkpoint is foreign bytes: whatever goes wrong while it is read, the caller gets a `ValueError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.utils import logging

POINTER = b"version https://git-lfs"
"""How a file begins that stands for one that Git LFS has not fetched."""
_PACKED = 16
"""Most weights that one stored number may stand for, as in quantised checkpoints."""
_SIZES = ("_size", "_dim", "_heads", "_layers", "depth", "channels", "_embeddings", "_experts")
_UNBOUND = ("max_position_embeddings",)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def check_device(device: torch.device, attention: str | None) -> None:
    """Refuses a device that is not there, and an attention whose package is not.

    Raises:
        ValueError: Naming it.
    """
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r}: torch sees no CUDA device here; leave it out, or choose 'cpu'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {str(device)!r}: there are {torch.cuda.device_count()} CUDA devices, from 0 on")
    if attention == "flash_attention_2":
        from transformers.utils import is_flash_attn_2_available

        if not is_flash_attn_2_available():
            raise ValueError(
                "attn_implementation 'flash_attention_2' needs a GPU and the package flash-attn "
                "(bash setup.sh installs it where there is one); leave it out, or choose 'sdpa'"
            )


def check_sizes(folder: str | Path, config: Any) -> None:
    """Refuses a configuration of sizes that the weights in its folder do not have, before memory is taken for them.

    Every size of a model stands for that many rows, or columns, of some matrix whose other side is the width.

    Raises:
        ValueError: Naming the field.
    """
    held = sum(_numbers_in(file) for file in Path(folder).glob("*.safetensors"))
    if not held:
        return
    for section in (config.get_text_config(), config.vision_config):
        for name, value in section.to_dict().items():
            if not name.endswith(_SIZES) or name in _UNBOUND or type(value) is not int:
                continue
            needed = value ** (2 if name == "patch_size" else 1) * section.hidden_size
            if not 0 <= needed <= _PACKED * held:
                raise ValueError(f"{folder}: {name} is {value} in config.json, but the weights are {held} numbers")


def _numbers_in(file: Path) -> int:
    with safe_open(file, "pt") as tensors:
        return sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


@contextmanager
def without_progress_bar() -> Iterator[None]:
    """Keeps transformers from drawing one for files, which a terminal would show beside those of the caller."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def misfits(report: dict[str, Any]) -> dict[str, list[str]]:
    """What transformers says of weights that do not fit the model, each tensor named; empty if all do."""
    found = {kind: sorted(map(_tensor, keys)) for kind, keys in report.items() if keys}
    return {
        kind: names if len(names) <= 5 else [*names[:5], f"and {len(names) - 5} more"] for kind, names in found.items()
    }


def _tensor(key: Any) -> str:
    """A weight's name, with its shapes where these are what is wrong."""
    if isinstance(key, tuple) and len(key) == 3:
        name, stored, wanted = key
        return f"{name} {list(stored)} instead of {list(wanted)}"
    return str(key)


def check_weights(model: torch.nn.Module, name: str) -> None:
    """Refuses weights that are not numbers: such a model answers, and always the same.

    Raises:
        ValueError: Naming one of them.
    """
    for key, weight in model.named_parameters():
        if weight.is_floating_point() and weight.device.type != "meta" and not torch.isfinite(weight.sum()):
            if torch.isfinite(weight).all():  # only the sum is too large for the type
                continue
            raise ValueError(f"{name}: {key} holds values that are no finite numbers; the checkpoint is damaged")
