"""Training of the compressed student: supervised, C-GRPO and on-policy distillation, on Hugging Face TRL; its tower.

Names are loaded on first use: trl takes seconds to import.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from marc.extras import require
from marc.lazy import handed_on

if TYPE_CHECKING:
    from marc.training.config import CGRPOConfig, TowerConfig, VideoSFTConfig
    from marc.training.dataset import to_dataset, to_supervised, to_videos
    from marc.training.grpo import CGRPOTrainer
    from marc.training.sft import VideoSFTTrainer
    from marc.training.tower import TowerTrainer

__all__ = [
    "CGRPOConfig",
    "CGRPOTrainer",
    "TowerConfig",
    "TowerTrainer",
    "VideoSFTConfig",
    "VideoSFTTrainer",
    "to_dataset",
    "to_supervised",
    "to_videos",
]

_HOMES = {
    "CGRPOConfig": "marc.training.config",
    "CGRPOTrainer": "marc.training.grpo",
    "TowerConfig": "marc.training.config",
    "TowerTrainer": "marc.training.tower",
    "VideoSFTConfig": "marc.training.config",
    "VideoSFTTrainer": "marc.training.sft",
    "to_dataset": "marc.training.dataset",
    "to_supervised": "marc.training.dataset",
    "to_videos": "marc.training.dataset",
}


require("train", "datasets", "peft", "trl")

# peft imports bitsandbytes for whoever has it, which then asks for another package to speed QLoRA up on CPUs.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__getattr__ = handed_on(__name__, _HOMES)
