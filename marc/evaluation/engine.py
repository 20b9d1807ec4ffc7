"""Who answers: the interface that the runner calls, and the one engine that stands behind it.

The runner knows nothing of models. An engine gets a batch of samples and returns one `marc.types.Answer` each, so
tests run the whole evaluation with an engine of ten lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from marc.evaluation.samples import Sample
from marc.types import Answer, GenerationOptions


class Engine(Protocol):
    """Answers samples."""

    def answer(self, samples: Sequence[Sample], generation: GenerationOptions) -> Sequence[Answer]:
        """One answer per sample, in order.

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
