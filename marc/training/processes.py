"""Machines without a GPU, which accelerate and DeepSpeed recognise only where they are told."""

from __future__ import annotations

import os

import torch
from transformers import TrainingArguments


def use_cpu_processes(args: TrainingArguments) -> None:
    """Lets the processes that torchrun started without a GPU train together; call it before the options are set up.

    Without ``use_cpu`` accelerate takes each of them for the only one: all would train, and write, alone. DeepSpeed,
    which accelerate imports wherever it is installed, would look for a GPU and print that it found none.
    """
    if torch.accelerator.is_available():
        return
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        args.use_cpu = True


def connect_deepspeed(args: TrainingArguments) -> None:
    """Makes DeepSpeed know the processes, as accelerate does on GPUs; call it once the options are set up.

    ZeRO-3 shares weights out while they are loaded, and must know among whom.
    """
    if args.deepspeed and args.use_cpu and args.world_size > 1:
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)
