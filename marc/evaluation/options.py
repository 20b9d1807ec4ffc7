"""What an evaluation is asked with: option records that commands derive their options from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from marc.compression.config import CompressionConfig
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.options import Limits, Option, Record, build, changes, check, options_of
from marc.types import ModelOptions
from marc.video.options import FrameOptions, SubtitleOptions


@dataclass(frozen=True)
class TaskOptions:
    """Where questions come from, and by which rules they are asked.

    Attributes:
        protocol: video-r1 or official; ``None``: video-r1 where the benchmark has it.
        data: Folder of the annotation files; the micro-world is made there.
        videos: Folder that video paths start from; ``None``: the annotations'.
        allow_outside: Also read files that annotations name outside of it.
        style: Prompt style of the video-r1 protocol; ``None``: the benchmark's.
        limit: So many samples, evenly spread over the benchmark; ``None``: all.
    """

    protocol: str | None = None
    data: Path = Path("data")
    videos: Path | None = None
    allow_outside: bool = False
    style: str | None = None
    limit: Annotated[int | None, Limits(least=1)] = None

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class EngineOptions:
    """Who answers: everything that a `marc.inference.assistant.VideoAssistant` is made from but its budget.

    Attributes:
        model: Which model, and how it is loaded.
        frames: Which frames are read; a method limits their number and size.
        memory: How videos are remembered, for methods with the memory.
        retrieval: What is retrieved of them.
        compression: Fields of `marc.compression.CompressionConfig` that replace the model's, as far as a method leaves
            them open.
        subtitles: What subtitles are used for; by default nothing, as benchmarks say whether they may be.
    """

    model: ModelOptions = field(default_factory=ModelOptions)
    frames: FrameOptions = field(default_factory=FrameOptions)
    memory: MemoryOptions = field(default_factory=MemoryOptions)
    retrieval: RetrievalOptions = field(default_factory=RetrievalOptions)
    compression: Mapping[str, Any] = field(default_factory=dict)
    subtitles: SubtitleOptions = field(default_factory=lambda: SubtitleOptions("none"))

    @classmethod
    def from_names(cls, values: Mapping[str, Any]) -> EngineOptions:
        """From options by name, as in a recipe, each a value or text.

        Raises:
            ValueError: If there is no such option, or its value is wrong; the message names it.
        """
        left = dict(values)

        def take(record: type) -> dict[str, Any]:
            return {option.field: left.pop(option.name) for option in options_of(record) if option.name in left}

        def build_from(record: type[Record]) -> Record:
            return build(record, take(record), _name)

        options = cls(
            build_from(ModelOptions),
            build_from(FrameOptions),
            build_from(MemoryOptions),
            build_from(RetrievalOptions),
            changes(CompressionConfig, take(CompressionConfig), _name),
            build(SubtitleOptions, {"choice": "none", **take(SubtitleOptions)}, _name),
        )
        if left:
            raise ValueError(f"there is no option {', '.join(left)}; docs/options.md lists them")
        return options


def _name(option: Option) -> str:
    return option.name
