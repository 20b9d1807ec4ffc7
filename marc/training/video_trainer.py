"""What our trainers share: files read, a budget drawn for the step, encodings shared and handed to the model.

A video is encoded once for all rows of a batch that share it. With ``freeze_tower`` (or LoRA on the language model
alone) that encoding serves every pass over the rows; where the tower is trained, each pass encodes with the weights
that it needs, and those of an optimizer step with gradients once (`marc.training.encoded_once`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers.integrations import is_deepspeed_zero3_enabled

from marc.compression import CompressionConfig
from marc.compression.config import parse_budget
from marc.inference.encoding import encode, encode_once
from marc.inference.hf import HFBackend
from marc.inference.video_input import KINDS, VideoInput, at_compression, feature_inputs, grid_inputs
from marc.model import CompressedProcessor, CompressedVLM
from marc.model.loading import load_model
from marc.model.modeling import token_types
from marc.training.budgets import BudgetMix
from marc.training.config import VideoOptions
from marc.training.encoded_once import StepEncodings
from marc.training.evaluating import summed_accuracy
from marc.training.reader import VisualReader
from marc.training.resume import ExactResume
from marc.training.whole_weights import gathering
from marc.types import GenerationOptions
from marc.video.sources import FrameSource, VideoFiles


@dataclass(frozen=True)
class Encoded:
    """What some rows show, encoded.

    Attributes:
        features: Of each input.
        dummies: What was encoded besides, see `VideoInput.dummy`; the model must be given it, too.
    """

    features: dict[VideoInput, Tensor]
    dummies: list[VideoInput]

    def of(self, rows: Sequence[Sequence[VideoInput]]) -> dict[str, Any]:
        """``mm_encoder_outputs`` of some of the rows."""
        outputs = feature_inputs([*rows, self.dummies], self.features)
        return {"mm_encoder_outputs": outputs} if outputs else {}


class VideoTrainer(ExactResume):
    """A `Trainer` whose rows may name videos; mixed in before one of TRL's.

    Attributes:
        _reader: Reads the files of prompts; None if the model is not ours.
        _budget: At which the rows in hand are seen, the same on every process.
        _budget_name: What it is called, in training.
    """

    args: Any
    model: Any
    control: Any
    eval_dataset: Any
    _metrics: Any
    _reader: VisualReader | None
    _budget: CompressionConfig | None = None
    _budget_name = ""

    def _draw_budget(self) -> CompressionConfig:
        """The budget of this step; every pass over this step's rows then follows from their inputs."""
        assert self._reader is not None
        self._budget = own = self._reader.processor.compression
        if self.model.training:
            mix = self._budget_mix
            self._budget_name, self._budget = mix.draw(self.args.seed, self.state.global_step, own)
            for known in mix.shares:
                self._log(f"budget/{known}", float(self._budget_name == known))
        return self._budget

    @cached_property
    def _budgets(self) -> list[CompressionConfig]:
        """All that rows may be seen at, in training and in evaluation."""
        assert self._reader is not None
        own = self._reader.processor.compression
        return [*self._budget_mix.all(own), *(parse_budget(name, own) for name in self.args.eval_budgets or ())]

    @property
    def _budget_mix(self) -> BudgetMix:
        """What steps draw their budget from."""
        mix: BudgetMix = self.args.budget_mix
        return mix

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """TRL's, or with ``eval_budgets`` the accuracy at each of them, see `marc.training.evaluating`.

        Args:
            eval_dataset: As in TRL; with ``eval_budgets`` rows of `marc.training.to_dataset`.
            ignore_keys: As in TRL.
            metric_key_prefix: Begins the names of what is measured.
        """
        if not self.args.eval_budgets:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        rows = list(self.eval_dataset if eval_dataset is None else eval_dataset)
        found = {f"{metric_key_prefix}_accuracy/{name}": each for name, each in self._accuracies(rows).items()}
        self.log(dict(found))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def _accuracies(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Mean accuracy of the rows at each budget; every process asks its share of them."""
        assert self._reader is not None
        mine = rows[self.accelerator.process_index :: self.accelerator.num_processes]
        options, budgets = GenerationOptions(self.args.eval_new_tokens), self.args.eval_budgets
        policy = base_model(self.accelerator.unwrap_model(self.model))
        training = policy.training
        policy.eval()
        try:
            with gathering(self, lambda: self.model_wrapped)():
                sums = summed_accuracy(HFBackend(policy, self._reader.processor), self._reader, mine, budgets, options)
        finally:
            policy.train(training)
        together = self.accelerator.reduce(torch.tensor(list(sums.values()), device=self.accelerator.device))
        return {name: float(each) / len(rows) for name, each in zip(sums, together, strict=True)}

    @cached_property
    def _step_encodings(self) -> StepEncodings:
        """Of a tower that is trained, and of prompts; open in trainers that have it as a callback."""
        return StepEncodings()

    @cached_property
    def _trains_tower(self) -> bool:
        """From the first pass on, which adapters that are off for a while would not tell."""
        tower = base_model(self.accelerator.unwrap_model(self.model)).model.visual
        return any(weight.requires_grad for weight in tower.parameters())

    def _encoded(self, model: Any, rows: Sequence[Sequence[VideoInput]], *, as_trained: bool = False) -> Encoded:
        """Encodes what some rows show, or did so earlier in this run or, if the tower is trained, in this step.

        In the dtype of the weights, as in generation, also under mixed precision. Every process makes the same calls
        of the tower, whatever its own rows hold.
        """
        inputs = [each for row in rows for each in row]
        if self._trains_tower:
            return self._encoded_by_trained(base_model(self.accelerator.unwrap_model(model)), inputs, as_trained)
        (dummies,) = self._dummies([each for each in inputs if not each.is_known])
        policy = base_model(self.accelerator.unwrap_model(self.model))
        return Encoded(encode_once(policy, [*inputs, *dummies], self._budgets), dummies)

    def _encoded_by_trained(self, weights: CompressedVLM, inputs: Sequence[VideoInput], as_trained: bool) -> Encoded:
        """Encodes with the weights that are given; of the policy what an optimizer step needs again is kept.

        Whoever knows that all adapters are on, also without gradients, says so by ``as_trained``.
        """
        step = self._step_encodings
        apart = step.apart if torch.is_grad_enabled() else frozenset(inputs)
        known = step.features if self._keeps(weights, as_trained) else {}
        new = [each for each in inputs if each in apart and each not in known]
        connected = [each for each in inputs if each not in apart]
        new_dummies, dummies = self._dummies(new, connected)
        with torch.no_grad():
            known |= encode(weights, [*new, *new_dummies])
        features = encode(weights, [*connected, *dummies])
        if not torch.is_grad_enabled():
            return Encoded({each: known[each] for each in [*inputs, *new_dummies]}, new_dummies)
        joined = {each: step.joined(each, value) for each, value in features.items()}
        leaves = {each: step.leaf(each, known[each]) for each in apart.intersection(inputs)}
        return Encoded(leaves | joined, dummies)

    def _keeps(self, weights: CompressedVLM, as_trained: bool) -> bool:
        """Whether the weights are the policy's, as a step has them; without gradients adapters may be off."""
        policy = self.accelerator.unwrap_model(self.model)
        is_own = weights is base_model(policy) and policy.training and self._step_encodings.is_open
        return is_own and (as_trained or torch.is_grad_enabled() or not isinstance(policy, PeftModel))

    def _dummies(self, *calls: Sequence[VideoInput]) -> list[list[VideoInput]]:
        """For each call of the tower, a dummy of each kind that another process is about to encode and this one not.

        A tower that is trained runs even where no process has anything to encode: its weights need gradients, of
        which the last call is.
        """
        if self.accelerator.num_processes == 1:
            return [[] for _ in calls]
        assert self._reader is not None and self._budget is not None
        own = [[sum(each.kind == kind for each in new) for kind in KINDS] for new in calls]
        everywhere = self.accelerator.reduce(torch.tensor(own, device=self.accelerator.device)).tolist()
        if self._trains_tower and torch.is_grad_enabled() and not any(everywhere[-1]):
            everywhere[-1][0] = 1
        return [
            [
                VideoInput.dummy(kind, self._reader.processor, self._budget)
                for kind, count, wanted in zip(KINDS, counts, needed, strict=True)
                if wanted and not count
            ]
            for counts, needed in zip(own, everywhere, strict=True)
        ]

    def _visual_inputs(
        self,
        model: Any,
        input_ids: Tensor,
        rows: Sequence[Sequence[VideoInput]],
        encoded: Encoded | None = None,
    ) -> dict[str, Any]:
        """What the model takes beside token ids; empty where no row has a video or image.

        Args:
            model: Encodes them.
            input_ids: Of the rows.
            rows: What they show.
            encoded: From `_encoded` of these and other rows; without it they are encoded now.
        """
        features = (encoded or self._encoded(model, rows)).of(rows)
        inputs: dict[str, Any] = dict(grid_inputs(rows))
        if inputs:
            inputs["mm_token_type_ids"] = token_types(input_ids, base_model(self.model))
        return {**inputs, **features}

    def _at_budget_of(self, model: Any, rows: Sequence[Sequence[VideoInput]]) -> AbstractContextManager[None]:
        """Runs a model at the budget at which some rows are seen."""
        budget = next((each.compression for row in rows for each in row), None)
        base = base_model(self.accelerator.unwrap_model(model))
        return nullcontext() if budget is None else at_compression(base, budget)

    def _log(self, name: str, value: float) -> None:
        self._metrics["train" if self.model.training else "eval"][name].append(value)


def base_model(model: Any) -> Any:
    """The model inside PEFT's wrapper."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def make_reader(processor: Any, args: VideoOptions, frames: FrameSource | None = None) -> VisualReader | None:
    """What reads the files of a trainer's prompts; None if the model is not ours."""
    if not isinstance(processor, CompressedProcessor):
        return None
    options = args.frames
    files = frames or VideoFiles.of(options)
    return VisualReader(processor, files, options.max_pixels, args.keep_visuals, options.min_pixels)


def load_like(model: CompressedVLM, name: str, device: Any, **compression: Any) -> CompressedVLM:
    """A frozen model of other weights, which computes as a given one does."""
    attention = model.config._attn_implementation
    loaded, _ = load_model(name, device=device, dtype=model.dtype, attn_implementation=attention, **compression)
    return loaded.requires_grad_(False)


def frozen_copy(model: CompressedVLM) -> CompressedVLM:
    """A model's weights as they are now; read again where ZeRO-3 has shared them out already."""
    if is_deepspeed_zero3_enabled():
        return load_like(model, model.name_or_path, "cpu", **model.compression.to_dict())
    return deepcopy(model).eval().requires_grad_(False)
