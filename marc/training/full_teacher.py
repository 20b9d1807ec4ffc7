"""The full-frame teacher: the model that the compressed student is to keep up with, reading every token of a video.

Whose weights it has is ``teacher_model``:

- ``initial``: those with which training began, in a frozen copy (the reference model, where there is one). With LoRA
  the base weights, which are the policy with its adapters off, also where these had been trained before.
- ``self``: those of the policy as they are now: the student learns to say with few tokens what it would say with all.
- a folder or a hub name: another checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers.integrations import is_deepspeed_zero3_enabled
from trl.models.utils import prepare_deepspeed

from marc.inference.hf import HFBackend
from marc.inference.prompts import Prompt, pad_rows
from marc.inference.video_input import VideoInput, at_compression, every_token, inputs_at
from marc.model import CompressedProcessor, CompressedVLM
from marc.training.config import CGRPOConfig
from marc.training.video_trainer import VideoTrainer, base_model, load_like
from marc.training.whole_weights import gathering


@dataclass(frozen=True)
class FullFrameTeacher:
    """The teacher's weights.

    Attributes:
        model: The policy, or a model of its own.
        adapters_off: Use the policy without its LoRA adapters.
        whole: Where ZeRO-3 shares weights out, every process has all of them in this context, which all must enter.
    """

    model: Any
    adapters_off: bool = False
    whole: Callable[[], AbstractContextManager[object]] = nullcontext

    @contextmanager
    def weights(self) -> Iterator[CompressedVLM]:
        """The model with every token, without gradients; the policy is as it was afterwards."""
        base = base_model(self.model)
        training = base.training
        off = self.model.disable_adapter() if self.adapters_off else nullcontext()
        base.eval()
        try:
            with torch.no_grad(), off, at_compression(base, every_token(base.compression)):
                yield base
        finally:
            base.train(training)

    @contextmanager
    def engine(self, processor: CompressedProcessor) -> Iterator[HFBackend]:
        """The model of `weights` as an engine.

        Args:
            processor: The policy's.
        """
        with self.weights() as model:
            yield HFBackend(model, processor)


def needs_copy(model: Any, args: CGRPOConfig, peft_config: Any) -> bool:
    """Whether the weights with which training begins must be kept beside the policy for the teacher."""
    at_hand = isinstance(model, PeftModel) or peft_config is not None or (args.beta != 0 and not args.sync_ref_model)
    return args.needs_teacher and args.teacher_model == "initial" and not at_hand


def make_teacher(trainer: Any, name: str, initial: CompressedVLM | None) -> FullFrameTeacher:
    """The teacher of a trainer that is set up.

    Args:
        trainer: A `VideoTrainer` of TRL's GRPO.
        name: ``teacher_model``.
        initial: The copy that `needs_copy` asked for.

    Raises:
        ValueError: If a frozen tower differs from the teacher's.
    """
    policy = trainer.accelerator.unwrap_model(trainer.model)
    off = name == "initial" and isinstance(policy, PeftModel)
    if name == "self" or off:
        return FullFrameTeacher(policy, off, gathering(trainer, lambda: trainer.model_wrapped))
    if name == "initial" and initial is None:
        reference = trainer.accelerator.unwrap_model(trainer.ref_model)
        return FullFrameTeacher(reference, whole=gathering(trainer, lambda: trainer.ref_model))
    device = trainer.accelerator.device
    model = load_like(base_model(policy), name, device) if initial is None else initial.to(device)
    engine = prepare_deepspeed(model, trainer.accelerator) if is_deepspeed_zero3_enabled() else model
    teacher = FullFrameTeacher(model, whole=gathering(trainer, lambda: engine))
    if initial is None:
        with teacher.whole():
            _check_shared_tower(base_model(policy), model, name)
    return teacher


def _gathered(module: torch.nn.Module) -> AbstractContextManager[object]:
    if not is_deepspeed_zero3_enabled():
        return nullcontext()
    from deepspeed import zero

    gathered: AbstractContextManager[object] = zero.GatheredParameters(list(module.parameters()))
    return gathered


def completion_states(
    trainer: VideoTrainer,
    teacher: FullFrameTeacher,
    prompts: Sequence[Sequence[int]],
    visuals: Sequence[Sequence[VideoInput]],
    completions_BC: Tensor,
    mask_BC: Tensor,
    *,
    batch_size: int,
) -> Tensor:
    """The teacher's last hidden states where the student's own tokens are predicted, ``[B, C, D]``.

    Args:
        trainer: Encodes the videos.
        teacher: The teacher.
        prompts: Token ids with one placeholder for each video or image.
        visuals: What the student saw; the teacher sees every token of the same videos.
        completions_BC: The student's tokens, padded on the right.
        mask_BC: 1 where they are.
        batch_size: Rows of one forward pass.
    """
    states = []
    with teacher.whole(), teacher.weights() as model:
        files = [[each.patches for each in row] for row in visuals]
        full = inputs_at(files, trainer.processing_class, model.compression)
        encoded = trainer._encoded(model, full)
        for start in range(0, len(prompts), batch_size):
            rows = slice(start, start + batch_size)
            ids = [
                Prompt(tuple(prompt), row).expanded(model)
                for prompt, row in zip(prompts[rows], full[rows], strict=True)
            ]
            longest, device = max(map(len, ids)), completions_BC.device
            present = pad_rows([[1] * len(row) for row in ids], 0, left=True).to(device)
            input_ids = torch.cat([pad_rows(ids, 0, left=True).to(device), completions_BC[rows]], 1)
            attention_mask = torch.cat([present, mask_BC[rows].long()], 1)
            with trainer.accelerator.autocast():
                output = model.model(
                    input_ids=input_ids,
                    attention_mask=attention_mask,
                    use_cache=False,
                    **trainer._visual_inputs(model, input_ids, full[rows], encoded),
                )
            states.append(output.last_hidden_state[:, longest - 1 : -1])
    return torch.cat(states)


def _check_shared_tower(policy: CompressedVLM, teacher: CompressedVLM, name: str) -> None:
    """One encoding serves both where the policy's tower is frozen."""
    if any(weight.requires_grad for weight in policy.model.visual.parameters()):
        return
    theirs = teacher.model.visual.state_dict()
    with _gathered(policy.model.visual):
        ours = {name: weight.clone() for name, weight in policy.model.visual.state_dict().items()}
    for key, weight in ours.items():
        if key not in theirs or not torch.equal(theirs[key].to(weight.device), weight):
            raise ValueError(
                f"teacher_model {name!r} has another vision tower than the model, whose frozen one encodes for both; "
                "choose a teacher with the same tower, or train the tower (freeze_tower: false)"
            )
