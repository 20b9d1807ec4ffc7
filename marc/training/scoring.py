"""Log-probabilities of answers about videos, as TRL asks for them, each prompt read once.

Rows with one prompt become one sequence (`marc.training.shared_prompts`), and passes that follow one another take from
each other what they have in common: with gradients the passes of an optimizer step, without gradients the chunks of a
pass (`marc.training.prompts_once`).

Shapes: B rows, L places of a padded row, C places of a completion, D channels.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from transformers.integrations import is_deepspeed_zero3_enabled

from marc.inference.packing import KnownPrefixes
from marc.inference.video_input import VideoInput
from marc.model.attention import why_not_shared
from marc.training.prompts_once import ChunkPrompts, StepPrompts, beginnings, prompts_of, varies
from marc.training.shared_prompts import SharedPromptModel, read_prompts
from marc.training.video_trainer import Encoded, VideoTrainer, base_model


class ScoringTrainer(VideoTrainer):
    """A `VideoTrainer` that scores answers; mixed in before TRL's GRPO."""

    beta: float
    aux_loss_enabled: bool
    is_fsdp_enabled: bool
    _entropy_bonus_enabled: bool
    # Of the rows in hand:
    _row_visuals: list[tuple[VideoInput, ...]] | None = None
    _idle_rows: list[bool] | None = None
    _shared_prompts: SharedPromptModel | None = None

    def _begin_pass(self, model: Any, inputs: dict[str, Any]) -> None:
        """Finds what a pass with gradients over the rows in hand has in common with others of its step."""
        self._idle_rows = self._nothing_to_learn(inputs)
        self._step_encodings.next_pass(inputs, self._nothing_to_learn)
        self._read_apart(model, inputs)

    def _read_apart(self, model: Any, inputs: dict[str, Any]) -> None:
        """Reads without gradients the prompts of this pass that later ones of the step have, too.

        Every process encodes and reads as often as the others, if need be a prompt of which it has no need.
        """
        shown = self._row_visuals
        base = base_model(self.accelerator.unwrap_model(model))
        if not (shown and self._step_encodings.is_open and self._can_pack) or self._reads_otherwise:
            return
        wanted = self._step_prompts.next_pass(inputs, self._nothing_to_learn)
        count = torch.tensor(len(wanted.kept), device=self.accelerator.device)
        if not self.accelerator.reduce(count):
            return
        prompts, cheapest = prompts_of(inputs), min(range(len(shown)), key=lambda row: len(shown[row]))
        rows = [prompts.index(prompt) for prompt in wanted.kept] or [cheapest]
        some = [shown[row] for row in rows]
        with torch.no_grad():
            encoded = self._encoded(model, some, as_trained=True)
        given = partial(self._visual_inputs, model, encoded=encoded)
        with self._at_budget_of(model, some), self.accelerator.autocast():
            read_prompts(base, inputs["prompt_ids"][rows], inputs["prompt_mask"][rows], some, given, wanted)

    @cached_property
    def _reads_otherwise(self) -> bool:
        """Whether the policy in training reads the same prompt otherwise each time, by dropout or noise."""
        policy = base_model(self.accelerator.unwrap_model(self.model))
        return varies(policy.model) or bool(self.args.neftune_noise_alpha)

    def _end_pass(self) -> None:
        """Lets go what only the pass needed."""
        self._step_prompts.end_pass()
        self._shared_prompts = None

    @cached_property
    def _step_prompts(self) -> StepPrompts:
        """Of passes with gradients."""
        return StepPrompts(self._step_encodings)

    def _predicting(self, states: Tensor, completion: int) -> Tensor:
        """The last hidden states that predict completions, ``[B, C, D]``, of the pass that was just made."""
        if self._shared_prompts is not None:
            return self._shared_prompts.predicting(states)
        return states[:, -completion - 1 : -1]

    def _nothing_to_learn(self, inputs: Mapping[str, Any]) -> list[bool] | None:
        """Rows whose advantage is 0, where that is all that gives a row a gradient; not all of them, for ``backward``.

        Not under ZeRO-3 and FSDP, for which every process must read as often as the others, nor where processes train
        the tower together, for which each needs gradients, whatever the rows show from which it learns.
        """
        if not any(inputs.get("visuals") or ()):
            return None
        if self.beta != 0 or self._entropy_bonus_enabled or "teacher_states" in inputs or self.aux_loss_enabled:
            return None
        if is_deepspeed_zero3_enabled() or self.is_fsdp_enabled:
            return None
        if self.accelerator.num_processes > 1 and self._trains_tower:
            return None
        idle: list[bool] = (inputs["advantages"] == 0).tolist()
        return idle if not all(idle) else [False, *idle[1:]]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """As TRL's, with the videos of the rows in hand; prompts that rows share are read once.

        Rows from which nothing is learned are scored without gradients: theirs would be 0.
        """
        scored = partial(
            super()._get_per_token_logps_and_entropies,
            logits_to_keep=logits_to_keep,
            compute_entropy=compute_entropy,
            compute_aux_loss=compute_aux_loss,
        )
        visuals = self._row_visuals
        if visuals is None:  # no MARC model, or pictures that TRL hands on itself
            return scored(model, input_ids, attention_mask, batch_size=batch_size, **kwargs)
        assert len(visuals) == len(input_ids)
        known, parts = self._encoded(model, visuals), self._parts(len(input_ids), batch_size)
        chunks = ChunkPrompts(self._prompts_of(input_ids, attention_mask, logits_to_keep, parts))
        outputs = []
        for rows, learned_from in parts:
            ids, present, shown = input_ids[rows], attention_mask[rows], [visuals[row] for row in rows]
            reader = model if learned_from or not torch.is_grad_enabled() else self.accelerator.unwrap_model(model)
            before = self._step_prompts.known if learned_from else chunks.next_chunk()
            scorer = self._scorer(reader, ids, present[:, -logits_to_keep:], shown, known, before)
            with self._at_budget_of(model, shown), torch.set_grad_enabled(learned_from):
                outputs.append(scored(scorer, ids, present))
        if not torch.is_grad_enabled():
            self._shared_prompts = None
        logps, entropies, losses = zip(*outputs, strict=True)
        order = torch.tensor([row for rows, _ in parts for row in rows]).argsort().to(input_ids.device)
        return (
            torch.cat(logps)[order],
            torch.cat(entropies)[order] if compute_entropy else None,
            torch.stack(losses).mean() if compute_aux_loss else None,
        )

    def _parts(self, count: int, size: int | None) -> list[tuple[list[int], bool]]:
        """Rows that the model reads in one pass each, and whether with gradients."""
        if torch.is_grad_enabled():
            idle = [False] * count if self._idle_rows is None else self._idle_rows
            both = (([row for row in range(count) if idle[row] != learned], learned) for learned in (True, False))
            return [(rows, learned) for rows, learned in both if rows]
        size = size or count
        return [(list(range(start, min(start + size, count))), False) for start in range(0, count, size)]

    @property
    def _can_pack(self) -> bool:
        """Whether rows may share a prompt's tokens, of which a loss on the experts' router counts each."""
        text = base_model(self.accelerator.unwrap_model(self.model)).model.language_model
        return bool(self.args.share_prompts and not why_not_shared(text) and not self.aux_loss_enabled)

    def _prompts_of(
        self, input_ids: Tensor, attention_mask: Tensor, completion: int, parts: Sequence[tuple[list[int], bool]]
    ) -> list[list[Hashable]]:
        """Prompts of the parts that have no gradients, of those that are packed."""
        visuals = self._row_visuals or []
        prompts: list[list[Hashable]] = []
        for rows in (rows for rows, learned_from in parts if not learned_from):
            ids, present, shown = input_ids[rows], attention_mask[rows], [visuals[row] for row in rows]
            is_packed = self._packs(shown, present[:, -completion:])
            prompts.append(beginnings(ids, present, shown, completion) if is_packed else [])
        return prompts

    def _packs(self, shown: Sequence[tuple[VideoInput, ...]], answers: Tensor) -> bool:
        """Whether rows that show this, with completions whose tokens are present there, become one sequence."""
        return self._can_pack and any(shown) and bool(answers.any())

    def _scorer(
        self,
        model: Any,
        ids: Tensor,
        answers: Tensor,
        shown: Sequence[tuple[VideoInput, ...]],
        known: Encoded,
        before: KnownPrefixes,
    ) -> Any:
        """What TRL calls once with rows and labels; the visual inputs ride along."""
        self._shared_prompts = None
        if not self._packs(shown, answers):
            return partial(model, **self._visual_inputs(model, ids, shown, known))
        base = base_model(self.accelerator.unwrap_model(model))
        given = partial(self._visual_inputs, model, encoded=known)
        self._shared_prompts = SharedPromptModel(model, base, shown, given, answers.shape[1], before)
        return self._shared_prompts
