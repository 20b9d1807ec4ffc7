"""Resuming from a checkpoint: what transformers and TRL leave to be mended for it to be exact.

With a Qwen2.5-VL, transformers' `Trainer` resumes with the weights that it had. Its checkpoints name weights as the
published ones do, its models name them otherwise, and its loading of a checkpoint, unlike `from_pretrained`, does not
translate: every weight is "missing", which it only logs. TRL's order of prompts follows from how many epochs the
process has seen, which a resumed process has not. And a loader that is shared out among processes and skips batches
does not tell its sampler the epoch, whose order is then the first one's. And an older checkpoint is deleted when the
disk need not hold the new one yet.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from math import ceil
from pathlib import Path
from typing import Any, Protocol

from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from trl.trainer.utils import RepeatSampler

from marc.io import make_durable, write_json
from marc.model import CompressedVLM
from marc.model.checkpoints import check_report, loading_quietly


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest checkpoint that was written to its end; None if there is none.

    A process that is killed while it saves leaves half a checkpoint behind. The trainer's state is written last, once
    the disk holds the rest (`ExactResume`).
    """

    def is_whole(checkpoint: Path) -> bool:
        try:
            json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return True

    whole = [path for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if is_whole(path)]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def checkpoint_bytes(model: Any) -> int:
    """About how large a checkpoint is: the weights that it holds, and two float32 moments of each that trains.

    Args:
        model: A model, or one in PEFT's wrapper, of which adapters alone are saved.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad or not hasattr(model, "peft_config")]
    moments = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return sum(weight.numel() * weight.element_size() for weight in weights) + 8 * moments


def room_for_checkpoints(size: int, args: TrainingArguments, steps: int) -> str:
    """How much the checkpoints of a run take, against what is free.

    Args:
        size: Of one, in bytes.
        args: Of the run.
        steps: How many it has.

    Returns:
        A line for the user; empty where no checkpoint is saved, or one for which there is room.
    """
    if args.save_strategy == "no":
        return ""
    every = args.save_steps if args.save_steps >= 1 else max(1, ceil(args.save_steps * steps))
    count = ceil(steps / every) if args.save_strategy == "steps" else ceil(args.num_train_epochs)
    most = min(count, (args.save_total_limit or count) + 1)  # an older one is deleted once the new one is there
    free = shutil.disk_usage(args.output_dir).free
    if count == 1 and size < free:
        return ""
    one, whole = f"{size / 2**30:.2f} GiB", f"{most * size / 2**30:.2f} GiB"
    limit = "" if args.save_total_limit else "; save_total_limit keeps fewer"
    enough = "" if most * size < free else f": MORE than the {free / 2**30:.2f} GiB that are free there"
    return f"a checkpoint takes about {one}, at most {most} in {args.output_dir} {whole}{enough}{limit}"


class RoomForCheckpoints(TrainerCallback):
    """Says before the first step how much room the run's checkpoints take (`room_for_checkpoints`).

    Args:
        saved: What a checkpoint holds, if not what the trainer trains.
    """

    def __init__(self, saved: Any = None) -> None:
        self._saved = saved

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **about: Any) -> None:
        """See the class."""
        if not state.is_world_process_zero:  # others may have no output folder yet
            return
        if said := room_for_checkpoints(checkpoint_bytes(self._saved or about["model"]), args, state.max_steps):
            print(said, file=sys.stderr)


class Kept(Protocol):
    """What learns beside the model and is part of a checkpoint, equal in every process."""

    def state(self) -> dict[str, Any]:
        """What is kept of it, as JSON."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what was kept."""


class ExactResume(Trainer):
    """A `Trainer` that resumes with the checkpoint's weights and the epoch's order, also after a loss of power.

    `_load_from_checkpoint` goes by `from_pretrained`, and leaves adapters their dtype; `_run_epoch` tells the
    innermost sampler the epoch. What learns beside the model is in a file of its name each. Random numbers are what
    each process saves last; the state by which a checkpoint is taken for whole follows once all have done so, and
    older checkpoints are deleted once the disk holds the new one.
    """

    def _learns_beside(self) -> dict[str, Kept]:
        """What else a checkpoint keeps, by name."""
        return {}

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self.args.should_save:
            for name, kept in self._learns_beside().items():
                write_json(Path(output_dir) / f"{name}.json", kept.state())
        make_durable(output_dir)
        self.accelerator.wait_for_everyone()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            folder = self._get_output_dir(trial=trial)
            make_durable(Path(folder) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
            rotate_checkpoints(folder, limit, self.state.best_model_checkpoint, use_mtime=True)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        for name, kept in self._learns_beside().items() if checkpoint is not None else ():
            file = Path(checkpoint or "") / f"{name}.json"
            if not file.exists():
                raise ValueError(f"{name}: {checkpoint} is of a run without it; begin another run, or leave it out")
            kept.restore(json.loads(file.read_text(encoding="utf-8")))

    def _run_epoch(self, *, epoch: int, train_dataloader: Any, **rest: Any) -> None:
        batches: Any = getattr(train_dataloader, "batch_sampler", None)
        while hasattr(batches, "batch_sampler"):
            batches = batches.batch_sampler
        sampler: Any = getattr(batches, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, train_dataloader=train_dataloader, **rest)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        target = self.model if model is None else model
        if not isinstance(target, CompressedVLM) or self.is_fsdp_enabled:
            dtypes = {name: weight.dtype for name, weight in target.named_parameters() if weight.requires_grad}
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            for name, weight in target.named_parameters():
                if name in dtypes:  # PEFT reads QLoRA's adapters into float32
                    weight.data = weight.data.to(dtypes[name])
            return
        with loading_quietly():
            loaded, report = type(target).from_pretrained(
                resume_from_checkpoint, dtype=target.dtype, output_loading_info=True, ignore_mismatched_sizes=True
            )
        check_report(resume_from_checkpoint, report)
        target.load_state_dict(loaded.state_dict())


class EpochSampler(Sampler[int]):
    """TRL's sampler with an order that follows from seed and epoch, so that resuming in a later epoch is exact.

    Args:
        sampler: TRL's, whose order follows from how many epochs this process has seen.
    """

    def __init__(self, sampler: RepeatSampler) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[int]:
        return iter(self.sampler)

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch (`ExactResume`)."""
        if self.sampler.shuffle:
            self.sampler.generator.manual_seed(self.sampler.seed + epoch)
