"""Training of the compressed student: supervised, C-GRPO and on-policy distillation, on Hugging Face TRL.

Names are loaded on first use: trl takes seconds to import.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from marc.extras import require
from marc.lazy import handed_on

if TYPE_CHECKING:
    from marc.training.config import CGRPOConfig, VideoSFTConfig
    from marc.training.dataset import to_dataset, to_supervised
    from marc.training.grpo import CGRPOTrainer
    from marc.training.sft import VideoSFTTrainer

__all__ = ["CGRPOConfig", "CGRPOTrainer", "VideoSFTConfig", "VideoSFTTrainer", "to_dataset", "to_supervised"]

_HOMES = {
    "CGRPOConfig": "marc.training.config",
    "CGRPOTrainer": "marc.training.grpo",
    "VideoSFTConfig": "marc.training.config",
    "VideoSFTTrainer": "marc.training.sft",
    "to_dataset": "marc.training.dataset",
    "to_supervised": "marc.training.dataset",
}


require("train", "datasets", "peft", "trl")

# peft imports bitsandbytes for whoever has it, which then asks for another package to speed QLoRA up on CPUs.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__getattr__ = handed_on(__name__, _HOMES)
