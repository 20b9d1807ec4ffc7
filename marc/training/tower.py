"""Training of the vision tower to merge early: what it says of merged grids becomes what it said of each, averaged.

With ``compression.tower_layer`` grids merge between two blocks, and the blocks behind see averages, which a stock
tower was not trained for. Here it is, by itself: its teacher is the same tower before training, which reads every
grid, and a grid that stands for several is to say what the teacher says of these, averaged as they were merged. No
labels, no questions, no language model: videos alone. Steps draw where grids merge, at times nowhere, so that one set
of weights serves all places and keeps saying of every grid what it said.

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

from marc.compression import CompressionConfig, VideoPlan
from marc.inference.video_input import VideoInput, VisualPatches
from marc.model import CompressedProcessor, CompressedVLM
from marc.model.family import load_name
from marc.model.tower import CutTower, MergingTower, TowerOutput
from marc.training.checks import check_tower_training, rows_of
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
        """What the tower gives of some videos, see `MergingTower`; together if they fit into a chunk."""
        pixels = torch.cat([video.pixels for video in videos if video.pixels is not None]).to(self.visual.device)
        chunk = compression.tower_chunk
        fits = chunk is None or len(pixels) <= chunk
        merging = MergingTower(self.visual, self._cut, None if fits else chunk, compression.duplicates)
        return merging(pixels, [video.grid_thw for video in videos], plans)

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """The tower's."""
        self.visual.activation_checkpointing_enable(**options)

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """The tower's, under its older name."""
        self.visual.gradient_checkpointing_enable(**options)


def tower_error(merged: Sequence[TowerOutput], whole: Sequence[TowerOutput]) -> Tensor:
    """How far merged grids are from what a teacher says of those that they stand for, averaged as they were merged.

    ``sum |s - t|^2 / sum |t|^2`` over all videos, ``t`` of a merged grid being the weighted mean of the teacher's
    tokens: what merging the same grids in the same order behind the tower would give.

    Args:
        merged: Of each video, ``[S, P, W]``.
        whole: The same videos with every grid, ``[T, P, W]``.

    Returns:
        A number in float32, 0 where nothing is lost.
    """
    distances, sizes = [], []
    for own, teacher in zip(merged, whole, strict=True):
        wanted_SPW = torch.einsum("st,tpw->spw", own.weights.float(), teacher.tokens.float())
        distances.append((own.tokens.float() - wanted_SPW).square().sum())
        sizes.append(wanted_SPW.square().sum())
    return torch.stack(distances).sum() / torch.stack(sizes).sum().clamp_min(torch.finfo(torch.float32).tiny)


@dataclass(frozen=True)
class VideoCollator:
    """Reads the videos of some items; those of an item whose file cannot be read may be left out."""

    reader: VisualReader
    skip_bad: bool

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Returns ``videos``, and ``bad``, how many are left out."""
        sources = [visual_sources(item["prompt"]) for item in items]
        read = read_rows(self.reader, sources, [item["problem_id"] for item in items], skip_bad=self.skip_bad)
        return {"videos": [video for row in read if row is not None for video in row], "bad": read.count(None)}


class TowerTrainer(ExactResume):
    """Trains a model's vision tower to merge inside; its language model stays as it is, on the CPU.

    Args:
        model: A `CompressedVLM`.
        args: The options.
        train_dataset: From `marc.training.to_videos`: columns ``prompt`` (a chat that names a video) and
            ``problem_id``.
        eval_dataset: Likewise; its loss is the mean over all places that steps may draw, at the model's own budget.
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
        self._places = check_tower_training(model, processing_class, args)
        reader = make_reader(processing_class, args, frames)
        assert reader is not None
        for row in rows_of(eval_dataset):
            _check_readable(reader, row)
        self._policy = model.requires_grad_(False)
        self._logged: dict[str, list[float]] = defaultdict(list)
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
        if self.is_fsdp_enabled:
            raise ValueError("fsdp: the tower is run in parts, which it cannot follow; use DDP or DeepSpeed's ZeRO-2")

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """`tower_error` at the place and budget of this step.

        A process whose videos could not be read encodes a smallest one, for gradients of zero.
        """
        seed, step = self.args.seed, self.state.global_step
        _, budget = self.args.budget_mix.draw(seed, step, self.processing_class.compression)
        place, videos = self._places.draw(seed, step), inputs["videos"]
        read = videos or [VideoInput.dummy("video", self.processing_class, budget).patches]
        (error,) = self._errors(model, read, [place], budget)
        error = error if videos else 0 * error
        self._note(place, error, len(videos), inputs["bad"])
        return (error, {}) if return_outputs else error

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> tuple[Tensor, None, None]:
        """The mean error at all places; there are no logits and labels.

        Raises:
            ValueError: If none of the batch's videos could be read.
        """
        if not inputs["videos"]:
            raise ValueError("eval_rows: no video of a batch could be read (warnings name them); leave these rows out")
        own = self.processing_class.compression
        with torch.no_grad():
            errors = self._errors(model, inputs["videos"], self._places.drawn, own)
        return torch.stack(errors).mean(), None, None

    def _errors(
        self, model: Any, videos: Sequence[VisualPatches], places: Sequence[str], budget: CompressionConfig
    ) -> list[Tensor]:
        """How far a tower is from the teacher at each place."""
        whole = replace(budget, tower_layer=None)
        with torch.no_grad(), self.accelerator.autocast():
            wanted = self._teacher(videos, self._plans(videos, whole), whole)
        merging = [self._places.at(place, budget) for place in places]
        return [tower_error(model(videos, self._plans(videos, each), each), wanted) for each in merging]

    def _plans(self, videos: Sequence[VisualPatches], compression: CompressionConfig) -> list[VideoPlan]:
        """What becomes of each video at a budget."""
        return [
            VideoInput.of(video, self.processing_class, compression).plan
            or VideoPlan.whole(video.grid_thw[0], video.size)
            for video in videos
        ]

    def _note(self, place: str, error: Tensor, read: int, bad: int) -> None:
        """Notes for the log what all processes have seen in a step."""
        own = torch.stack([error.detach().float(), *error.new_tensor([float(read > 0), float(bad)]).float()])
        total, processes, unread = self.accelerator.reduce(own).tolist()
        self._logged["bad_videos"].append(unread)
        if processes:
            self._logged[f"tower_error/{place}"].append(total / processes)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Training's with the mean error at each place since the last time, and how many videos batches lacked."""
        if "loss" in logs:
            logs = {**logs, **{name: sum(values) / len(values) for name, values in self._logged.items()}}
            self._logged.clear()
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        trained, self.model = self.model, self._policy
        try:
            super()._save(output_dir)
        finally:
            self.model = trained

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, self._policy)


def _check_readable(reader: VisualReader, row: dict[str, Any]) -> None:
    """Refuses a row whose file cannot be opened.

    Raises:
        ValueError: Naming the row.
    """
    for source in visual_sources(row["prompt"]):
        try:
            reader.look(source)
        except ValueError as error:
            raise ValueError(f"evaluation row with problem_id {row['problem_id']}: {error}") from error
