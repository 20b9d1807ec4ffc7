"""What stands behind the assistant, the evaluation and the teacher: an engine that encodes and generates.

An engine gets prompts whose videos are read and planned (`marc.inference.prompts.Prompt`), so that it knows neither
files nor memories, and says how many tokens there will be before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from marc.compression import CompressionConfig
from marc.inference.listening import Listener
from marc.inference.prompts import Prompt
from marc.inference.stages import StageClock
from marc.inference.thinking import GreedyOutput
from marc.inference.video_input import VideoInput
from marc.types import GenerationOptions


class Turns(Protocol):
    """A conversation of which the engine keeps what it has read."""

    def generate(
        self,
        prompt: Prompt,
        options: GenerationOptions,
        clock: StageClock | None = None,
        tell: Callable[[str], object] | None = None,
    ) -> list[int]:
        """Token ids of the output for a prompt.

        Args:
            prompt: All turns so far, the answers among them. What it begins with like the last one, answer included,
                is not read again.
            options: How to generate.
            clock: Is told what prefill and decoding took.
            tell: Is told each piece of the output as it comes, some of them empty; ``False`` in return ends it there.
        """
        ...

    def greedy(self, prompt: Prompt, options: GenerationOptions, clock: StageClock | None = None) -> GreedyOutput:
        """The likeliest tokens with their probabilities, whatever the options say of sampling; see `generate`."""
        ...


class Backend(Protocol):
    """An engine that answers prompts.

    Attributes:
        processor: The model's: chat template, tokenizer, pictures to patches.
        compression: The budget at which videos are seen; assign to change it for what follows.
    """

    processor: Any
    compression: CompressionConfig

    @property
    def config(self) -> Any:
        """The model's configuration."""
        ...

    @property
    def cannot(self) -> dict[str, str]:
        """What it cannot do, each with the reason, such as ``{"static": "…"}``."""
        ...

    @property
    def device(self) -> Any:
        """Where the model is."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        ...

    @property
    def name(self) -> str:
        """Folder or hub name of the model's weights."""
        ...

    def fingerprint(self) -> str:
        """Tells weights apart: hexadecimal digits, which are comparable between runs of one engine."""
        ...

    def encode(self, inputs: Sequence[VideoInput], clock: StageClock | None = None) -> None:
        """Runs the vision tower and the compression over inputs that have no features yet, each once.

        Args:
            inputs: They get ``features``, and give up their pixels.
            clock: Is told what tower and compression took.
        """
        ...

    def generate(
        self,
        prompts: Sequence[Prompt],
        options: GenerationOptions,
        clock: StageClock | None = None,
        listeners: Sequence[Listener] = (),
    ) -> list[list[int]]:
        """Token ids of one output per prompt, in one generation for each budget.

        Args:
            prompts: Their inputs are encoded. What several of them begin with is read once.
            options: How to generate.
            clock: Is told what prefill and decoding took.
            listeners: To the outputs, one for each; none: nobody hears them before all have ended.

        Raises:
            ValueError: If the engine cannot do what the options ask for.
        """
        ...

    def greedy(
        self, prompts: Sequence[Prompt], options: GenerationOptions, clock: StageClock | None = None
    ) -> list[GreedyOutput]:
        """One output of likeliest tokens per prompt, one generation a budget, with the probabilities of these tokens.

        An engine may give an output up where it is less probable than ``options.think_below``.

        Args:
            prompts: Their inputs are encoded. What several of them begin with is read once.
            options: How long an output may be and how probable it must be; what they say of sampling does not count.
            clock: Is told what prefill and decoding took.
        """
        ...

    def sample(self, prompts: Sequence[Prompt], options: GenerationOptions, samples: int) -> list[list[list[int]]]:
        """Token ids of several outputs for each prompt, drawn as the model has them.

        The checkpoint's own options of generation do not count, and tokens of vision are not drawn. What is drawn for
        a prompt does not depend on those beside it, and the caller's random state is left alone.

        Args:
            prompts: Their inputs are encoded.
            options: How to generate; ``static`` is not for this.
            samples: Outputs for each prompt.
        """
        ...

    def converse(self) -> Turns:
        """Begins a conversation."""
        ...
