"""What can be wrong with a checkpoint, said before or instead of transformers' own errors: one line that names it.

A checkpoint is foreign bytes: whatever goes wrong while it is read, the caller gets a `ValueError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import LogRecord, getLogger
from pathlib import Path
from typing import Any, get_args

import torch
from transformers.utils import logging

from marc.io import numbers_in
from marc.types import Dtype

_PACKED = 16
"""Most weights that one stored number may stand for, as in quantised checkpoints."""
_SIZES = ("_size", "_dim", "_heads", "_layers", "depth", "channels", "_embeddings", "_experts")
_UNBOUND = ("max_position_embeddings",)
_REPORTED = {
    "mismatched_keys": "of another shape",
    "missing_keys": "missing",
    "unexpected_keys": "not of this model",
    "error_msgs": "unreadable",
}


def check_dtype(dtype: object) -> None:
    """Refuses a text that names no type of weights.

    Raises:
        ValueError: Saying which there are.
    """
    if isinstance(dtype, str) and dtype not in get_args(Dtype):
        raise ValueError(f"dtype {dtype!r}: choose one of {', '.join(get_args(Dtype))}")


def check_sizes(folder: str | Path, config: Any) -> None:
    """Refuses a configuration of sizes that the weights in its folder do not have, before memory is taken for them.

    Every size of a model stands for that many rows, or columns, of some matrix whose other side is the width.

    Raises:
        ValueError: Naming the field.
    """
    held = numbers_in(folder)
    if not held:
        return
    for section in (config.get_text_config(), config.vision_config):
        for name, value in {"hidden_size": section.hidden_size, **section.to_dict()}.items():
            if not name.endswith(_SIZES) or name in _UNBOUND or type(value) is not int:
                continue
            needed = value ** (2 if name == "patch_size" else 1) * abs(section.hidden_size)
            if value < 0 or needed > _PACKED * held:
                raise ValueError(f"{folder}: {name} is {value} in config.json, but the weights are {held} numbers")


@contextmanager
def loading_quietly() -> Iterator[None]:
    """Keeps libraries quiet while weights are read or written.

    transformers draws a bar for files, and a table of weights (see `check_report`); DeepSpeed says that it has no GPU.
    """
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    loggers = [getLogger(name) for name in ("transformers.modeling_utils", "DeepSpeed")]
    for logger in loggers:
        logger.addFilter(_is_worth_saying)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_worth_saying)
        if shown:
            logging.enable_progress_bar()


def _is_worth_saying(record: LogRecord) -> bool:
    text = record.getMessage()
    is_table = " LOAD REPORT" in text and "CONVERSION" not in text  # which the error that follows refers to
    return not is_table and "Setting accelerator to CPU" not in text


def check_report(name: str, report: Mapping[str, Any]) -> None:
    """Refuses weights that do not fit the model.

    Args:
        name: Of the checkpoint.
        report: What transformers says of its tensors (``output_loading_info``).

    Raises:
        ValueError: Naming tensors, with their shapes where these are what is wrong, in one line.
    """
    wrong = [
        f"{_REPORTED.get(kind, kind)}: {_first(sorted(map(_tensor, keys)))}" for kind, keys in report.items() if keys
    ]
    if wrong:
        held = ", ".join(file.name for file in sorted(Path(name).glob("*.safetensors"))[:2]) or "the weights"
        raise ValueError(f"{name}: {held} and config.json do not fit each other; {'; '.join(wrong)}")


def _first(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 3 else [*names[:3], f"and {len(names) - 3} more"])


def _tensor(key: Any) -> str:
    """A weight's name, with its shapes where these are what is wrong."""
    if isinstance(key, tuple) and len(key) == 3:
        name, stored, wanted = key
        return f"{name} is {list(stored)}, not {list(wanted)}"
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
