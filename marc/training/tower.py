"""Training of the vision tower to merge early: what it says of merged grids becomes what it said of each, averaged.

With ``compression.tower_layer`` grids merge between two blocks, and the blocks behind see averages, which a stock
tower was not trained for. Here it is, by itself: its teacher is the same tower before training, which reads every
grid, and a grid that stands for several is to say the mean of what the teacher says of these. No labels, no questions,
no language model: videos alone. Steps draw where grids merge, at times nowhere, so that one set of weights serves all
places and keeps saying of every grid what it said.

What is changed of transformers' `Trainer`, and where: the data collator reads videos, `compute_loss` is the distance
to the teacher, and a checkpoint holds the whole model, so that `marc.load_model` reads it.

    bash training_script/run_tower_video.sh

Shapes: T temporal grids, S grids that remain, P cells of a grid, W features of all streams of a token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from marc.compression import CompressionConfig, VideoPlan
from marc.compression.plan import event_ids
from marc.inference.video_input import VideoInput, VisualPatches
from marc.model import CompressedProcessor, CompressedVLM
from marc.model.family import load_name
from marc.model.tower import CutTower, MergingTower, TowerOutput
from marc.training.budgets import LayerMix
from marc.training.checks import check_tower_training
from marc.training.config import TowerConfig
from marc.training.inputs import visual_sources
from marc.training.reader import VisualReader, read_rows
from marc.training.resume import ExactResume
from marc.training.video_trainer import make_reader
from marc.video.sources import FrameSource


class TrainedTower(nn.Module):
    """A vision tower as a module whose ``forward`` merges on the way, for DDP and DeepSpeed to wrap.

    Args:
        tower: A model's.
        cut: Takes it apart.
    """

    def __init__(self, tower: Any, cut: CutTower) -> None:
        super().__init__()
        self.visual, self._cut = tower, cut

    def forward(
        self, videos: Sequence[VisualPatches], plans: Sequence[VideoPlan], compression: CompressionConfig
    ) -> list[TowerOutput]:
        """What the tower gives of some videos, see `MergingTower`."""
        merging = MergingTower(self.visual, self._cut, compression.tower_chunk, compression.duplicates)
        pixels = torch.cat([video.pixels for video in videos if video.pixels is not None]).to(self.visual.device)
        return merging(pixels, [video.grid_thw for video in videos], plans)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """The tower's."""
        self.visual.gradient_checkpointing_enable(gradient_checkpointing_kwargs)


def tower_error(merged: Sequence[TowerOutput], whole: Sequence[TowerOutput]) -> Tensor:
    """How far merged grids are from the mean of what a teacher says of those that they stand for.

    ``sum |s - t|^2 / sum |t|^2`` over all videos, ``t`` of a merged grid being the mean of its grids' tokens.

    Args:
        merged: Of each video, ``[S, P, W]``.
        whole: The same videos with every grid, ``[T, P, W]``.

    Returns:
        A number in float32, 0 where nothing is lost.
    """
    distance, size = torch.zeros(()), torch.zeros(())
    for own, teacher in zip(merged, whole, strict=True):
        belongs_TS = F.one_hot(own.members, len(own.tokens)).to(torch.float32)
        wanted_SPW = torch.einsum("ts,tpw->spw", belongs_TS / belongs_TS.sum(0), teacher.tokens.float())
        distance = distance.to(wanted_SPW.device) + (own.tokens.float() - wanted_SPW).square().sum()
        size = size.to(wanted_SPW.device) + wanted_SPW.square().sum()
    return distance / size.clamp_min(torch.finfo(torch.float32).tiny)


@dataclass(frozen=True)
class VideoCollator:
    """Reads the videos of some items, as ``videos``; an item whose file cannot be read may be left out."""

    reader: VisualReader
    skip_bad: bool

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, list[VisualPatches]]:
        """Reads."""
        sources = [visual_sources(item["prompt"]) for item in items]
        read = read_rows(self.reader, sources, [item["problem_id"] for item in items], skip_bad=self.skip_bad)
        return {"videos": [video for row in read if row is not None for video in row]}


class TowerTrainer(ExactResume):
    """Trains a model's vision tower to merge inside; its language model stays as it is, on the CPU.

    Args:
        model: A `CompressedVLM`.
        args: The options.
        train_dataset: From `marc.training.to_videos`: columns ``prompt`` (a chat that names a video) and
            ``problem_id``.
        eval_dataset: Likewise; its loss is the mean over all places where grids merge.
        processing_class: A `CompressedProcessor` with the model's compression.
        frames: Where the videos that prompts name come from; by default they are files.
        **kwargs: As in transformers.

    Raises:
        ValueError: If the options, the model and the data do not fit.
    """

    processing_class: CompressedProcessor
    args: TowerConfig
    model: Any

    def __init__(
        self,
        model: CompressedVLM,
        args: TowerConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        frames: FrameSource | None = None,
        **kwargs: Any,
    ) -> None:
        args = args or TowerConfig("tower")
        check_tower_training(model, processing_class, args)
        reader = make_reader(processing_class, args, frames)
        assert reader is not None
        self._policy = model.requires_grad_(False)
        self._places = args.layer_mix if args.tower_layers else LayerMix.of(model.compression.tower_layer)
        self._errors: dict[str, list[float]] = defaultdict(list)
        tower, cut = model.model.visual, load_name(model.family.tower_part)
        self._teacher = TrainedTower(deepcopy(tower).eval(), cut).to(args.device)
        tower.requires_grad_(True)
        super().__init__(
            model=TrainedTower(tower, cut),
            args=args,
            data_collator=VideoCollator(reader, args.bad_video == "skip"),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """`tower_error` at the place and budget of this step; in evaluation the mean over all places.

        A process whose videos could not be read encodes a smallest one, for gradients of zero.
        """
        seed, step, own = self.args.seed, self.state.global_step, self.processing_class.compression
        _, budget = self.args.budget_mix.draw(seed, step, own)
        videos: list[VisualPatches] = inputs["videos"]
        read = videos or [VideoInput.dummy("video", self.processing_class, budget).patches]
        whole = replace(budget, tower_layer=None)
        with torch.no_grad():
            wanted = self._teacher(read, self._plans(read, whole), whole)
        losses = []
        for name in [self._places.draw(seed, step)] if model.training else self._places.shares:
            merging = self._places.at(name, budget)
            error = tower_error(model(read, self._plans(read, merging), merging), wanted)
            losses.append(error if videos else 0 * error)
            if videos and model.training:
                self._errors[name].append(error.item())
        loss = torch.stack(losses).mean()
        return (loss, {}) if return_outputs else loss

    def _plans(self, videos: Sequence[VisualPatches], compression: CompressionConfig) -> list[VideoPlan]:
        """What becomes of each video at a budget."""
        return [
            self.processing_class.plan(
                video.grid_thw, compression, events=tuple(event_ids(video.grid_thw[0], compression, video.events))
            )
            for video in videos
        ]

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> tuple[Tensor, None, None]:
        """The loss alone; there are no logits and labels."""
        with torch.no_grad():
            return self.compute_loss(model, inputs).detach(), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """With the mean error at each place since the last time, as ``tower_error/PLACE``."""
        means = {f"tower_error/{name}": sum(errors) / len(errors) for name, errors in self._errors.items()}
        self._errors.clear()
        super().log({**logs, **means}, start_time)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        trained, self.model = self.model, self._policy
        try:
            super()._save(output_dir)
        finally:
            self.model = trained

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, self._policy)
