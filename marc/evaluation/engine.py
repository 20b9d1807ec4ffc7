"""Who answers: the interface that the runner calls, and the one engine that stands behind it.

The runner knows nothing of models. An engine gets a batch of samples and returns one `marc.types.Answer` each, so
tests run the whole evaluation with an engine of ten lines.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from marc.evaluation.samples import Sample
from marc.types import Answer, GenerationOptions


@dataclass(frozen=True)
class Failure:
    """Why something could not be answered; unlike an exception it holds on to nothing of what was being computed.

    Attributes:
        reason: Type and message of the exception.
        is_the_videos: Whether the video cannot be read, whatever is asked about it.
    """

    reason: str
    is_the_videos: bool


Reply: TypeAlias = tuple[Sample, Answer | Failure]
Batches: TypeAlias = Sequence[Sequence[Sample]]


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


@runtime_checkable
class EnginePool(Protocol):
    """Several engines alike, which answer whatever is next as they are free."""

    def answer_all(
        self, groups: Sequence[Batches], answered: Container[str], generation: GenerationOptions
    ) -> Iterator[Reply]:
        """The answer of each sample that has none yet, or why there is none, as they come.

        Args:
            groups: Batches about the same videos, which one engine gets one after the other.
            answered: Ids of samples that have an answer.
            generation: How to generate.
        """
        ...

    def card(self) -> dict[str, Any]:
        """As `Engine.card`."""
        ...
