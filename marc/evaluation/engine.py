"""Who answers: the interface that the runner calls, and the one engine that stands behind it.

The runner knows nothing of models. An engine gets a batch of samples and returns one `Reply` each, so tests run the
whole evaluation with an engine of ten lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from marc.evaluation.samples import Sample
from marc.types import GenerationOptions


@dataclass(frozen=True)
class Reply:
    """What an engine says about one sample.

    Attributes:
        output: The model's whole output.
        frames: Frames that were decoded for the model.
        visual_tokens_before: Visual tokens of these frames without compression.
        visual_tokens_after: Visual tokens that the language model read.
        prompt_tokens_before: What these frames would have cost in the prompt without compression.
        prompt_tokens_after: What the video did cost in the prompt: marks and timestamps, too.
        seconds: Wall time by stage; a batch's time is shared out evenly.
        peak_memory_bytes: Peak memory of the device (of the process on a CPU).
        events: Retrieved events as ``(start, end)`` in seconds, in time order.
        scores: Cosine similarity of the question with each of ``events``.
    """

    output: str
    frames: int = 0
    visual_tokens_before: int = 0
    visual_tokens_after: int = 0
    prompt_tokens_before: int = 0
    prompt_tokens_after: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    events: tuple[tuple[float, float], ...] = ()
    scores: tuple[float, ...] = ()


class Engine(Protocol):
    """Answers samples; see `Reply`."""

    def answer(self, samples: Sequence[Sample], generation: GenerationOptions) -> Sequence[Reply]:
        """One reply per sample, in order.

        Args:
            samples: A batch.
            generation: How to generate.

        Raises:
            ValueError: If a sample cannot be answered (an unreadable video, a prompt that is too long).
            OSError: If a file cannot be read.
            RuntimeError: If the device fails, for want of memory for instance.
        """
        ...

    def card(self) -> dict[str, Any]:
        """What identifies the engine in a run card: model, weights, configuration. JSON-serialisable."""
        ...
