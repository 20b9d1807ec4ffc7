"""Who answers, and how: the options that all commands share which ask a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from marc.cli.options import Given, Part, compression_changes
from marc.compression.config import NEAR_DUPLICATES, CompressionConfig
from marc.memory.options import FirstAnswerOptions, MemoryOptions, RetrievalOptions
from marc.types import GenerationOptions, ModelOptions
from marc.video.options import FrameOptions, SubtitleOptions

if TYPE_CHECKING:
    from marc.inference.assistant import VideoAssistant

Changes = Annotated[
    dict[str, Any],
    Part(record=CompressionConfig, otherwise="the model's", defaults={"duplicates": NEAR_DUPLICATES}),
]


@dataclass(frozen=True)
class Setting:
    """Who answers, and how: all that does not depend on the question."""

    model: ModelOptions
    compression: Mapping[str, Any]
    frames: FrameOptions
    subtitles: SubtitleOptions
    memory: MemoryOptions | None
    retrieval: RetrievalOptions
    generation: GenerationOptions
    prompt_style: str | None
    first: FirstAnswerOptions = field(default_factory=FirstAnswerOptions)

    @classmethod
    def of(
        cls,
        given: Given,
        *,
        compression: dict[str, Any],
        budget: str | None,
        memory: MemoryOptions | None,
        **others: Any,
    ) -> Setting:
        """What a command's options say; wrong ones are refused before a model is loaded.

        Args:
            given: Which options were given.
            compression: Those of `CompressionConfig` among them.
            budget: See `marc.cli.options.Budget`.
            memory: None: without.
            **others: The other fields.

        Raises:
            ValueError: Naming the option.
        """
        remembering = (MemoryOptions, RetrievalOptions, FirstAnswerOptions, "library", "pictures")
        given.refuse_beside("--no-memory", memory is None, *remembering)
        setting = cls(compression=compression_changes(given, compression, budget), memory=memory, **others)
        setting._check()
        return setting

    def _check(self) -> None:
        from marc.data.prompts import check_style
        from marc.model.names import check_name

        check_name(self.model.name)
        check_style(self.prompt_style)
        if self.prompt_style is not None:
            self._check_thinking(self.prompt_style)
        check_runs(self.model.device, self.model.attn_implementation)
        if self.memory is not None and self.retrieval.embedder is not None:
            check_embedder(self.retrieval.embedder)
        choice = self.subtitles.choice
        if choice not in ("auto", "none") and not Path(choice).is_file():
            raise ValueError(f"--subtitles {choice}: there is no such file; name one, auto or none")

    def load(self, progress: Any = None) -> VideoAssistant:
        """The assistant."""
        from marc.inference.assistant import VideoAssistant

        assistant = VideoAssistant.from_pretrained(
            self.model.name,
            compression=self.compression,
            frames=self.frames,
            subtitles=self.subtitles,
            generation=self.generation,
            memory=self.memory,
            retrieval=self.retrieval,
            first_answer=self.first,
            device=self.model.device,
            dtype=self.model.dtype,
            attn_implementation=self.model.attn_implementation,
            backend=self.model.backend,
            prompt_style=self.prompt_style,
            progress=progress,
        )
        self._check_thinking(assistant.prompt_style)
        return assistant

    def _check_thinking(self, style: str) -> None:
        """Refuses to answer first in a prompt style that asks for the bare answer anyway."""
        from marc.data.prompts import check_asks_to_think, render_question

        if self.generation.think_below is not None:
            check_asks_to_think(render_question("?", style=style))

    @property
    def identity(self) -> str:
        """Tells answers of other options apart: 16 hexadecimal digits."""
        from marc.io import sha256_json
        from marc.version import ANSWERS

        values = {**asdict(self), "compression": dict(self.compression), "answers": ANSWERS}
        values["model"].pop("device")
        if values["model"]["backend"] == "hf":
            values["model"].pop("backend")
        values["frames"].pop("timeout")
        values["retrieval"].pop("folder")
        if values["retrieval"]["scope"] == "moments":
            values["retrieval"].pop("scope")
        values["generation"] = self.generation.identity
        values.pop("first")  # answers that are kept together wait for the memory
        return sha256_json(values)[:16]


def check_runs(device: str | None, attention: str | None = None) -> None:
    """Refuses a device, or an attention, that is not there; what is not given costs nothing.

    Raises:
        ValueError: Naming the option.
    """
    if device is not None:
        from marc.model.devices import find_device

        with _as_typed("--device"):
            find_device(device)
    if attention is not None:
        from marc.model.devices import check_attention

        with _as_typed("--attn-implementation"):
            check_attention(attention)


def check_embedder(name: str) -> None:
    """Refuses what can be no embedder, before anything is loaded.

    Raises:
        ValueError: Naming it.
    """
    from marc.memory.embedder import check_listed

    with _as_typed("--embedder"):
        check_listed(name)


@contextmanager
def _as_typed(option: str) -> Iterator[None]:
    """Has an error begin with the option as it is typed."""
    try:
        yield
    except ValueError as error:
        name = option.removeprefix("--").replace("-", "_")
        raise ValueError(f"{option} {str(error).removeprefix(name).lstrip()}") from error
