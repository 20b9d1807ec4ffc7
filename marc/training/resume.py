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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import Sampler
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from trl.trainer.utils import RepeatSampler

from marc.io import make_durable
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


class ExactResume(Trainer):
    """A `Trainer` that resumes with the checkpoint's weights and the epoch's order, also after a loss of power.

    `_load_from_checkpoint` goes by `from_pretrained`; `_run_epoch` tells the innermost sampler the epoch. Random
    numbers are what is saved last before the state by which a checkpoint is taken for whole; older checkpoints are
    deleted once the disk holds the new one.
    """

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        make_durable(output_dir)

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
            super()._load_from_checkpoint(resume_from_checkpoint, model)
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
