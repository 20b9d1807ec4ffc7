"""A pytest plugin: trainers' options ask for the CPU where there is no GPU, on which TRL's tests rely."""

import torch
from transformers import TrainingArguments

set_up = TrainingArguments.__post_init__


def on_cpu(self) -> None:
    self.use_cpu = not torch.accelerator.is_available()
    set_up(self)


TrainingArguments.__post_init__ = on_cpu
