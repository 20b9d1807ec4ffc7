"""Training of the compressed student: supervised, C-GRPO and on-policy distillation, on Hugging Face TRL.

Names are loaded on first use: trl takes seconds to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from marc.extras import require

if TYPE_CHECKING:
    from marc.training.config import CGRPOConfig, VideoSFTConfig
    from marc.training.dataset import to_dataset, to_supervised
    from marc.training.grpo import CGRPOTrainer
    from marc.training.sft import VideoSFTTrainer

__all__ = ["CGRPOConfig", "CGRPOTrainer", "VideoSFTConfig", "VideoSFTTrainer", "to_dataset", "to_supervised"]

_HOMES = {
    "CGRPOConfig": "config",
    "CGRPOTrainer": "grpo",
    "VideoSFTConfig": "config",
    "VideoSFTTrainer": "sft",
    "to_dataset": "dataset",
    "to_supervised": "dataset",
}


require("train", "datasets", "peft", "trl")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
