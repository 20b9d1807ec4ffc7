"""Each prompt of an optimizer step read once with gradients, however its answers are spread over micro-batches.

Of the micro-batches that hold answers to a prompt, all but the last read its keys and values, which one pass without
gradients has left, and the loss's gradients for these add up (`marc.model.prefix_attention.PrefixStates`). The last
one reads the prompt with gradients, which what has added up joins. What waits for other micro-batches is keys, values
and their gradients, no activation, and nothing else of a micro-batch changes: of eight answers in eight batches seven
do without reading the prompt forward and backward. `marc.training.encoded_once` does the same for videos.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from marc.inference.packing import KnownPrefixes
from marc.inference.video_input import VideoInput
from marc.model.prefix_attention import PrefixStates
from marc.training.encoded_once import Idle, StepEncodings
from marc.training.shared_prompts import rows_to_pack


class StepPrompts:
    """Which prompts the passes of an optimizer step have in common.

    Only prompts that show something, of rows with an answer from which something is learned: packed passes read these.

    Args:
        step: Knows which batches follow, and keeps the states until the step ends.

    Attributes:
        known: Prompts of other passes, for the pass in hand.
    """

    def __init__(self, step: StepEncodings) -> None:
        self._step = step
        self.known = KnownPrefixes()

    def next_pass(self, batch: Mapping[str, Any], idle: Idle) -> KnownPrefixes:
        """Notes what the pass with gradients that is begun has in common with others.

        Args:
            batch: Of the pass.
            idle: Asked of this batch and of those that follow.

        Returns:
            What must be read without gradients first.
        """
        states = self._step.prompts
        own = self._read(batch, idle)
        later = {prompt for each in self._step.following for prompt in self._read(each, idle)}
        new = {prompt: PrefixStates() for prompt in own if prompt in later and prompt not in states}
        states |= new
        stored = {prompt: states[prompt] for prompt in own if prompt in later}
        joined = {prompt: states.pop(prompt) for prompt in own if prompt in states and prompt not in later}
        for each in joined.values():
            each.forget()
        self.known = KnownPrefixes(stored, joined=joined)
        return KnownPrefixes(kept=new)

    def _read(self, batch: Mapping[str, Any], idle: Idle) -> list[Hashable]:
        """Prompts of a batch that are read with gradients; each batch is looked at once a step, which keeps it."""
        known = self._step.read
        if id(batch) not in known:
            known[id(batch)] = _learned(batch, idle)
        return known[id(batch)]

    def end_pass(self) -> None:
        """Lets go what the pass took from others: what its gradients need they hold."""
        self.known = KnownPrefixes()


def _learned(batch: Mapping[str, Any], idle: Idle) -> list[Hashable]:
    """Prompts of a batch that are read with gradients in packed passes, in order."""
    prompts = prompts_of(batch)
    nothing = idle(batch) or [False] * len(prompts)
    answered = batch["completion_mask"].any(1).tolist() if prompts else []
    rows = zip(prompts, batch.get("visuals") or (), nothing, answered, strict=True)
    learned = (prompt for prompt, shown, is_idle, is_answered in rows if shown and is_answered and not is_idle)
    return list(dict.fromkeys(learned))


def prompts_of(batch: Mapping[str, Any]) -> list[Hashable]:
    """What the rows of a batch of TRL's must have in common to share their prompts; none without videos."""
    visuals = batch.get("visuals")
    return [] if visuals is None else beginnings(batch["prompt_ids"], batch["prompt_mask"], visuals)


def beginnings(
    input_ids: Tensor, attention_mask: Tensor, shown: Sequence[tuple[VideoInput, ...]], completion: int = 0
) -> list[Hashable]:
    """`Row.beginning` of rows as `rows_to_pack` takes them."""
    return [row.beginning for row in rows_to_pack(input_ids, attention_mask, shown, completion)]


class ChunkPrompts:
    """Which prompts the chunks of a pass without gradients have in common: the first chunk leaves them to the others.

    Args:
        chunks: The prompts of each.
    """

    def __init__(self, chunks: Sequence[Sequence[Hashable]]) -> None:
        self._chunks = [list(dict.fromkeys(prompts)) for prompts in chunks]
        self._states: dict[Hashable, PrefixStates] = {}

    def next_chunk(self) -> KnownPrefixes:
        """Of the chunk that is begun."""
        own = self._chunks.pop(0)
        later = {prompt for chunk in self._chunks for prompt in chunk}
        stored = {prompt: self._states[prompt] for prompt in own if prompt in self._states}
        kept = {prompt: PrefixStates() for prompt in own if prompt in later and prompt not in stored}
        self._states = {prompt: states for prompt, states in (stored | kept | self._states).items() if prompt in later}
        return KnownPrefixes(stored, kept)


def varies(model: nn.Module) -> bool:
    """Whether a model in training gives other values for the same tokens each time it reads them.

    Dropout does that, in the layers or in adapters, which know it by several names.
    """
    rates: list[Any] = []
    for module in model.modules():
        rates += [getattr(module, "p", 0)] if "dropout" in type(module).__name__.lower() else []
        for name in ("attention_dropout", "module_dropout", "rank_dropout"):
            given = getattr(module, name, None)
            rates += given.values() if isinstance(given, Mapping) else [given]
    return model.training and any(isinstance(rate, float) and rate > 0 for rate in rates)
