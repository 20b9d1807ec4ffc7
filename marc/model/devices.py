"""Where a model can run, said before anything heavier than torch is imported."""

from __future__ import annotations

import importlib.util

import torch


def find_device(name: str | torch.device | None) -> torch.device:
    """The device of a name; None: the GPU if there is one.

    Raises:
        ValueError: It is no device, or is not there.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"device {name!r}: torch knows no such device; choose 'cpu', 'cuda' or 'cuda:1'") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r}: torch sees no CUDA device here; leave it out, or choose 'cpu'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {str(device)!r}: there are {torch.cuda.device_count()} CUDA devices, from 0 on")
    return device


def check_attention(name: str | None) -> None:
    """Refuses an attention whose package, or the GPU that it needs, is not there.

    Raises:
        ValueError: Naming it.
    """
    if name == "flash_attention_2" and not (importlib.util.find_spec("flash_attn") and torch.cuda.is_available()):
        raise ValueError(
            "attn_implementation 'flash_attention_2' needs a GPU and the package flash-attn "
            "(bash setup.sh installs it where there is one); leave it out, or choose 'sdpa'"
        )
