"""What depends on the model family, in one record each; everything outside ``marc/model/<family>/`` reads it here.

A family is a folder beside this file whose ``__init__`` declares a ``FAMILY``. Nothing lists the families: a new one
is a new folder. A record names its classes and imports them when they are asked for, so that declaring, finding and
reading records costs nothing: neither torch nor transformers is imported here.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module
from typing import Any, Literal

from marc.types import FRAMES_PER_GRID


@dataclass(frozen=True)
class Classes:
    """Where the classes of a family are, each as ``"module:Name"``.

    Attributes:
        config: The configuration.
        model: The model without a head.
        generator: The model that generates text.
        processor: The processor.
        tower: The vision tower.
    """

    config: str
    model: str
    generator: str
    processor: str
    tower: str

    def load(self, role: str) -> Any:
        """Imports the class of a role, one of this record's fields."""
        return load_name(getattr(self, role))

    @property
    def names(self) -> dict[str, str]:
        """Name of the class in each role."""
        return {field.name: getattr(self, field.name).partition(":")[2] for field in fields(self)}


@dataclass(frozen=True)
class PositionRule:
    """How a family numbers a video's tokens and what follows them (`marc.compression.positions`).

    Attributes:
        time: ``"seconds"``: the temporal axis counts seconds, ``tokens_per_second`` steps each. ``"text"``: times are
            written into the prompt, and every frame that remains begins at 0 on that axis.
        text_after: Where text goes on: ``"grid"``, after the larger side of the uncompressed grid; ``"published"``,
            after the largest position of the video on any axis.
    """

    time: Literal["seconds", "text"]
    text_after: Literal["grid", "published"]


@dataclass(frozen=True)
class Family:
    """What depends on a model family.

    Attributes:
        name: Its folder.
        title: What messages call it.
        model_type: Of our configuration, as ``config.json`` names it.
        stock_model_type: Of checkpoints of transformers' own classes, which ours take over.
        ours: Our classes.
        stock: Transformers' classes.
        positions: How tokens are numbered.
        vision_tokens: Special tokens of pictures, never sampled: in a completion they would stand for what is not
            there.
        language_linears: Regular expression of the language model's linear layers, to which LoRA's adapters go.
        whole_modules: Modules that keep their precision where the language model is quantised.
        tiny: Module with ``build_tiny``, see `marc.model.tiny`.
        frames_per_grid: Frames that the vision tower reads as one temporal grid; videos are read in such numbers.
    """

    name: str
    title: str
    model_type: str
    stock_model_type: str
    ours: Classes
    stock: Classes
    positions: PositionRule
    vision_tokens: tuple[str, ...]
    language_linears: str
    whole_modules: tuple[str, ...]
    tiny: str
    frames_per_grid: int = FRAMES_PER_GRID

    def __post_init__(self) -> None:
        if self.frames_per_grid != FRAMES_PER_GRID:
            raise ValueError(
                f"{self.title}: videos are read {FRAMES_PER_GRID} frames a temporal grid, not {self.frames_per_grid}"
            )

    def vision_token_ids(self, tokenizer: Any) -> list[int]:
        """Ids of `vision_tokens` that a tokenizer knows, in order."""
        vocabulary = tokenizer.get_vocab()
        return sorted(vocabulary[token] for token in self.vision_tokens if token in vocabulary)


def load_name(name: str) -> Any:
    """Imports what ``"module:Name"`` stands for."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


@cache
def families() -> tuple[Family, ...]:
    """All families, by name."""
    package = import_module("marc.model")
    folders = sorted(found.name for found in pkgutil.iter_modules(package.__path__) if found.ispkg)
    return tuple(import_module(f"marc.model.{folder}").FAMILY for folder in folders)


def find_family(model_type: str) -> Family:
    """The family of a checkpoint.

    Args:
        model_type: As its ``config.json`` names it, ours or transformers'.

    Raises:
        ValueError: If no family has it.
    """
    for family in families():
        if model_type in (family.model_type, family.stock_model_type):
            return family
    known = ", ".join(family.title for family in families())
    raise ValueError(f"no model family has the model type {model_type!r}; known are those of {known}")


def family_of(thing: Any) -> Family:
    """The family of a model (ours or transformers'), of a configuration, or of a processor of ours.

    Raises:
        ValueError: If it is none of these.
    """
    model_type = getattr(getattr(thing, "config", thing), "model_type", None)
    if model_type is not None:
        return find_family(model_type)
    names = {kind.__name__ for kind in type(thing).__mro__}
    for family in families():
        if family.ours.names["processor"] in names:
            return family
    raise ValueError(f"a {type(thing).__name__} belongs to no model family")
