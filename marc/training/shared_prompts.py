"""Log-probabilities of several answers to one prompt, the prompt read once: with gradients and without.

TRL hands the model a row for every answer, prompt and completion, and reads the log-probabilities of the completions.
`SharedPromptModel` stands between the two: rows with the same prompt become one sequence (`marc.inference.packing`) in
which that prompt stands once, its last token apart, since it predicts the first token of each answer. Padding is not
read, and the language model's head is asked for the completions alone. A prompt whose answers are spread over several
passes stands in one of them with gradients: see `marc.training.prompts_once`.

Shapes: B rows, L places of a padded row, C places of a completion, N tokens of a sequence, M completion tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from marc.inference.packing import KnownPrefixes, PackedRows, Row, pack_rows
from marc.inference.video_input import VideoInput, grid_inputs
from marc.model.attention import attention
from marc.model.modeling import token_types
from marc.model.prefix_attention import PREFIX_ATTENTION

VisualInputs = Callable[[Tensor, Sequence[tuple[VideoInput, ...]]], dict[str, Any]]
"""What the model takes of the visuals of some rows, with their token ids."""

OF_THE_MICRO_BATCH = ("bnpo",)
"""TRL's losses that depend on which rows of an optimizer step are read together."""


def answers_together(batches: list[dict[str, Any]], window: int) -> list[dict[str, Any]]:
    """Puts the answers to a prompt side by side, so that few of the batches hold each prompt.

    Args:
        batches: What TRL cut a generation into, in order.
        window: Batches of an optimizer step, whose gradient is a sum over rows: it stays the same.
    """
    if window == 1 or not batches or "visuals" not in batches[0]:
        return batches
    sorted_batches: list[dict[str, Any]] = []
    for some in (batches[start : start + window] for start in range(0, len(batches), window)):
        prompts = [tuple(ids) for batch in some for ids in batch["prompt_ids"].tolist()]
        numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        order = sorted(range(len(prompts)), key=lambda row: numbers[prompts[row]])
        size = len(order) // len(some)
        for index, batch in enumerate(some):
            rows = order[index * size : (index + 1) * size]
            sorted_batches.append({name: _rows_of([each[name] for each in some], rows, batch[name]) for name in batch})
    return sorted_batches


def _rows_of(values: list[Any], rows: list[int], own: Any) -> Any:
    """Some rows of values that stand row by row in several batches; other values are a batch's own."""
    if isinstance(own, Tensor) and own.ndim:
        return torch.cat(values)[rows]
    if isinstance(own, list):
        together = [item for value in values for item in value]
        return [together[row] for row in rows]
    return own


@dataclass(frozen=True)
class Scored:
    """What TRL reads of a model's output.

    Attributes:
        log_probs: Of each completion token, 0 where there is none: ``[B, C]``.
        entropy: Likewise; None if not asked for.
        aux_loss: None: dense models have none.
    """

    log_probs: Tensor
    entropy: Tensor | None
    aux_loss: None = None


@dataclass(frozen=True)
class PackedPrompts:
    """Rows of prompts and completions as one sequence.

    Attributes:
        rows: How they are packed.
        positions: Of its tokens, ``int64 [3, 1, N]``.
        predicting: The tokens that predict those of the completions, row by row, ``int64 [M]``.
        completions: Which of the B x C places of completions hold these, ``bool [B, C]``.
    """

    rows: PackedRows
    positions: Tensor
    predicting: Tensor
    completions: Tensor

    def inputs(self, input_ids: Tensor, rows: Sequence[Row], visual_inputs: VisualInputs) -> dict[str, Any]:
        """What the model takes of rows with these token ids, ``[B, L]``."""
        ids = self.rows.choose(input_ids)
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "position_ids": self.positions,
            "shared_prefixes": self.rows.prefixes,
            **visual_inputs(ids, [rows[row].shows for row in self.rows.leaders]),
        }

    def spread(self, values_M: Tensor) -> Tensor:
        """Values of the completions' tokens ``[M, ...]`` at their places, ``[B, C, ...]``, 0 elsewhere."""
        spread = values_M.new_zeros(*self.completions.shape, *values_M.shape[1:])
        return spread.index_put(self.completions.nonzero(as_tuple=True), values_M)


def rows_to_pack(
    input_ids: Tensor, attention_mask: Tensor, shown: Sequence[tuple[VideoInput, ...]], completion: int
) -> list[Row]:
    """Rows as TRL lays them out: prompts padded in front, completions padded at their ends.

    Args:
        input_ids: ``[B, L]``.
        attention_mask: ``[B, L]``.
        shown: What each row shows.
        completion: C.
    """
    prompt = input_ids.shape[1] - completion
    starts = (prompt - attention_mask[:, :prompt].sum(1)).tolist()
    ends = (prompt + attention_mask[:, prompt:].sum(1)).tolist()
    return [
        Row(row[start:end], prompt - start - 1, each, start)
        for row, start, end, each in zip(input_ids.tolist(), starts, ends, shown, strict=True)
    ]


def pack_prompts(
    model: Any, input_ids: Tensor, attention_mask: Tensor, rows: Sequence[Row], known: KnownPrefixes | None = None
) -> PackedPrompts:
    """Packs rows of `rows_to_pack`.

    Args:
        model: Without wrappers, at the budget of the rows.
        input_ids: ``[B, L]``.
        attention_mask: ``[B, L]``.
        rows: The same.
        known: Prompts of other passes.
    """
    width, device = input_ids.shape[1], input_ids.device
    prompt = rows[0].start + rows[0].opening + 1
    completion = width - prompt
    packed = pack_rows(rows, width, device, known)
    completions = attention_mask[:, prompt:].bool()
    row_M, place_M = completions.nonzero(as_tuple=True)
    predicting = packed.find(row_M * width + place_M + prompt - 1)
    positions = _positions(model, input_ids[:, :prompt], attention_mask[:, :prompt], rows)
    following = positions[..., -1:] + 1 + torch.arange(completion, device=device)
    return PackedPrompts(packed, packed.choose(torch.cat((positions, following), -1)), predicting, completions)


def _positions(model: Any, prompt_ids: Tensor, present: Tensor, rows: Sequence[Row]) -> Tensor:
    """M-RoPE positions of all prompts, each kind of prompt read once: ``int64 [3, B, prompt]``."""
    number: dict[Hashable, int] = {}
    own = [number.setdefault(row.beginning, len(number)) for row in rows]
    leaders = [own.index(each) for each in range(len(number))]
    grids = grid_inputs([rows[row].shows for row in leaders])
    ids = prompt_ids[leaders]
    known, _ = model.model.get_rope_index(
        ids,
        token_types(ids, model),
        attention_mask=present[leaders],
        **{name: value.to(prompt_ids.device) for name, value in grids.items()},
    )
    return known[:, own]


class SharedPromptModel:
    """A model as TRL calls it for log-probabilities, which reads each prompt once.

    Args:
        model: The model, perhaps wrapped, with TRL's fused head.
        base: The same without wrappers.
        shown: What each row shows.
        visual_inputs: Gives what the model takes of the visuals of some rows, with their token ids.
        completion: Most tokens of a completion.
        known: Prompts of other passes.
    """

    def __init__(
        self,
        model: Any,
        base: Any,
        shown: Sequence[tuple[VideoInput, ...]],
        visual_inputs: VisualInputs,
        completion: int,
        known: KnownPrefixes,
    ) -> None:
        self._model, self._base, self._shown = model, base, shown
        self._visual_inputs, self._completion, self._known = visual_inputs, completion, known
        self._packed: PackedPrompts | None = None

    def predicting(self, states_1ND: Tensor) -> Tensor:
        """Of the last hidden states of the pass that was made, those that predict completions, ``[B, C, D]``."""
        assert self._packed is not None
        return self._packed.spread(states_1ND[0, self._packed.predicting])

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, *, labels: Tensor, **kwargs: Any) -> Scored:
        """Scores the completions.

        Args:
            input_ids: ``[B, L]``.
            attention_mask: ``[B, L]``.
            labels: As TRL makes them: the completions' tokens.
            **kwargs: As TRL gives them; token types follow from the ids.
        """
        kwargs.pop("mm_token_type_ids", None)
        rows = rows_to_pack(input_ids, attention_mask, self._shown, self._completion)
        packed = pack_prompts(self._base, input_ids, attention_mask, rows, self._known)
        self._packed = packed
        targets = labels[:, -self._completion :][packed.completions]
        text = self._base.model.language_model
        with reading_with(text, PREFIX_ATTENTION), only_at(self._base.model, packed.predicting):
            inputs = packed.inputs(input_ids, rows, self._visual_inputs)
            output = self._model(**inputs, shift_labels=targets[None], **kwargs)
        entropy = None if output.entropy is None else packed.spread(output.entropy[0])
        return Scored(packed.spread(output.log_probs[0]), entropy)


@torch.no_grad()
def read_prompts(
    base: Any,
    prompt_ids: Tensor,
    present: Tensor,
    shown: Sequence[tuple[VideoInput, ...]],
    visual_inputs: VisualInputs,
    known: KnownPrefixes,
) -> None:
    """Reads prompts without gradients, for what they leave in `KnownPrefixes.kept`.

    Args:
        base: The model without wrappers, at the budget of the rows.
        prompt_ids: Padded in front, ``[B, L]``.
        present: What of it is no padding, ``[B, L]``.
        shown: What each shows.
        visual_inputs: Gives what the model takes of the visuals of some rows, with their token ids.
        known: Prompts of other passes.
    """
    rows = rows_to_pack(prompt_ids, present, shown, 0)
    packed = pack_prompts(base, prompt_ids, present, rows, known)
    with reading_with(base.model.language_model, PREFIX_ATTENTION):
        base.model(**packed.inputs(prompt_ids, rows, visual_inputs), use_cache=False)


@contextmanager
def reading_with(text: Any, name: str) -> Iterator[None]:
    """Has a language model use a registered attention, also where gradient checkpointing reads again, later."""

    def again(checkpoint: Callable[..., Any], read: Callable[..., Any], *args: Any) -> Any:
        def read_so(*args: Any) -> Any:
            with attention(text.config, name):
                return read(*args)

        return checkpoint(read_so, *args)

    layers = [layer for layer in text.layers if layer.gradient_checkpointing]
    checkpoints = [layer._gradient_checkpointing_func for layer in layers]
    for layer, checkpoint in zip(layers, checkpoints, strict=True):
        layer._gradient_checkpointing_func = partial(again, checkpoint)
    try:
        with attention(text.config, name):
            yield
    finally:
        for layer, checkpoint in zip(layers, checkpoints, strict=True):
            layer._gradient_checkpointing_func = checkpoint


@contextmanager
def only_at(model: nn.Module, places: Tensor) -> Iterator[None]:
    """Has a model without head return the last hidden states of some places of its one row alone."""

    def narrow(module: nn.Module, args: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[:, places]
        return output

    hook = model.register_forward_hook(narrow)
    try:
        yield
    finally:
        hook.remove()
