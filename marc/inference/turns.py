"""A conversation with the engine of transformers: what was read in one turn is kept for the next.

The prompt of a turn is that of the last one, its answer, and more. Keys and values (and the states of recurrent
layers) of what it begins with alike are kept; only the rest is read. So a video is read once, however long one talks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessorList, StoppingCriteriaList

from marc.inference.decoding import (
    UNWARPED,
    Draw,
    GreedyDraw,
    SharedPrompts,
    as_transformers_takes,
    decode_rows,
    drawn_as_transformers_does,
    ends_of,
)
from marc.inference.listening import Listener, ListeningRows
from marc.inference.prompts import Prompt
from marc.inference.stages import StageClock, prefill_and_decode
from marc.inference.thinking import GreedyOutput
from marc.inference.video_input import VideoInput, at_compression, feature_inputs, grid_inputs
from marc.model import CompressedProcessor, CompressedVLM
from marc.model.attention import why_not_shared
from marc.model.modeling import token_types
from marc.threads import threads_for
from marc.types import GenerationOptions

Mark = tuple[int, int, "VideoInput | None"]
"""A token, the number of the input that it belongs to (0: none), and this input."""
Tell = Callable[[str], object]
"""Is told each piece of an output as it comes, some of them empty; ``False`` in return ends the output there."""


class HFTurns:
    """The turns of one conversation, see `marc.inference.backend.Turns`.

    Args:
        model: Answers.
        processor: Its processor.
    """

    def __init__(self, model: CompressedVLM, processor: CompressedProcessor) -> None:
        self._model, self._processor = model, processor
        self._forget()

    @torch.no_grad()
    def generate(
        self, prompt: Prompt, options: GenerationOptions, clock: StageClock | None = None, tell: Tell | None = None
    ) -> list[int]:
        """See `marc.inference.backend.Turns`."""
        torch.manual_seed(options.seed)
        return self._generate(prompt, clock, drawn_as_transformers_does(1), as_transformers_takes(options), tell)

    @torch.no_grad()
    def greedy(self, prompt: Prompt, options: GenerationOptions, clock: StageClock | None = None) -> GreedyOutput:
        """See `marc.inference.backend.Turns`."""
        draw = GreedyDraw(1, options.think_below or 0.0, min(ends_of(self._model.generation_config)))
        tokens = self._generate(prompt, clock, draw, {"max_new_tokens": options.max_new_tokens, **UNWARPED})
        return draw.outputs([tokens])[0]

    def _generate(
        self,
        prompt: Prompt,
        clock: StageClock | None,
        draw: Draw,
        how: Mapping[str, Any],
        tell: Tell | None = None,
    ) -> list[int]:
        """An output by such options of ``generate``; what was read is forgotten if that fails."""
        ends = ends_of(self._model.generation_config)
        told = ListeningRows(self._processor.tokenizer, [Listener(tell)], ends) if tell else None
        try:
            with threads_for(self._model), prefill_and_decode(clock or StageClock(self._model.device)) as first:
                ids = self._read_at_its_budget(prompt)
                whole = torch.tensor([ids], device=self._model.device)
                tokens = self._model.generate(
                    input_ids=whole,
                    attention_mask=torch.ones_like(whole),
                    custom_generate=partial(decode_rows, prompts=self._prompts, draw=draw, streamer=told),
                    logits_processor=LogitsProcessorList([first]),
                    stopping_criteria=StoppingCriteriaList([told.stop] if told else []),
                    **how,
                )
        except BaseException:
            self._forget()
            raise
        output: list[int] = tokens[0, len(ids) :].tolist()
        self._known += [(token, 0, None) for token in output[:-1]]
        return output

    def _read_at_its_budget(self, prompt: Prompt) -> list[int]:
        with at_compression(self._model, prompt.compression or self._model.compression):
            return self._read(prompt)

    def _forget(self) -> None:
        """Begins anew."""
        self._known: list[Mark] = []
        self._cache = DynamicCache(config=self._model.config.get_text_config(decoder=True))

    def _read(self, prompt: Prompt) -> list[int]:
        """Reads all but the last token of a prompt, as far as it is new; all its token ids."""
        shown = (None, *prompt.inputs)
        wanted = [(token, number, shown[number]) for token, number in prompt.marked(self._model)]
        ids = [token for token, *_ in wanted]
        self._keep(_alike(wanted[:-1], self._known))
        begun, positions = len(self._known), self._positions(ids, prompt)
        self._read_on(wanted[begun:-1], positions[..., begun:-1])
        self._known = wanted
        present = positions.new_ones(1, len(ids) - 1)
        rest = positions[:, 0, -1:]
        self._prompts = SharedPrompts(self._cache, present, [0], [ids[-1:]], [rest], in_place=True)
        return ids

    def _keep(self, tokens: int) -> None:
        """Keeps so many tokens of what was read, or nothing where layers cannot go back."""
        surplus = len(self._known) - tokens
        if surplus and why_not_shared(self._model.model.language_model):
            self._forget()
        elif surplus:
            self._cache.crop(-surplus)
            self._known = self._known[:tokens]

    def _positions(self, ids: list[int], prompt: Prompt) -> Tensor:
        """M-RoPE positions of a prompt, ``int64 [3, 1, L]``."""
        model, device = self._model.model, self._model.device
        grids = {name: value.to(device) for name, value in grid_inputs([prompt.inputs]).items()}
        row = torch.tensor([ids], device=device)
        places: Tensor = model.get_rope_index(
            row, token_types(row, self._model), attention_mask=torch.ones_like(row), **grids
        )[0]
        return places

    def _read_on(self, marks: list[Mark], positions: Tensor) -> None:
        """Reads tokens behind what is kept; inputs are among them whole or not at all."""
        if not marks:
            return
        inputs = tuple({number: shown for _, number, shown in marks if shown is not None}.values())
        features = {each: each.features for each in inputs if each.features is not None}
        device = self._model.device
        self._model.model(
            input_ids=torch.tensor([[token for token, *_ in marks]], device=device),
            attention_mask=torch.ones(1, len(self._known) + len(marks), dtype=torch.long, device=device),
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            **({"mm_encoder_outputs": feature_inputs([inputs], features)} if inputs else {}),
        )


def _alike(first: Sequence[Mark], second: Sequence[Mark]) -> int:
    """Number of tokens that both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))
