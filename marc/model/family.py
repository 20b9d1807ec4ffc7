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
from typing import Any

from marc.types import FRAMES_PER_GRID


@dataclass(frozen=True)
class Classes:
    """Where classes of a family are, each as ``"module:Name"``.

    Attributes:
        config: The configuration.
        model: The model without a head.
        generator: The model that generates text.
        processor: The processor.
    """

    config: str
    model: str
    generator: str
    processor: str

    def load(self, role: str) -> Any:
        """Imports the class of a role, one of this record's fields."""
        return load_name(getattr(self, role))

    @property
    def names(self) -> dict[str, str]:
        """Name of the class in each role."""
        return {field.name: getattr(self, field.name).partition(":")[2] for field in fields(self)}


@dataclass(frozen=True)
class StockClasses(Classes):
    """Where transformers' classes of a family are.

    Attributes:
        tower: The vision tower.
        image_processor: What makes patches of images.
        video_processor: What makes patches of videos.
    """

    tower: str
    image_processor: str
    video_processor: str


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
        tower_part: Takes the vision tower apart, a `marc.model.tower.CutTower`.
        tower_with_attention: Takes the tower and gives one whose tokens carry what rules of `marc.compression.rivals`
            want to know: behind the features the attention that each token receives in the last block, and its keys
            there. ``None``: single tokens have no places in this family's prompts, and such rules are refused.
        tower_that_merges: Takes the tower and how many cells of a grid are to be left, and gives one that merges the
            others on the way, and tells behind the features where the token of each cell stands; likewise.
        vision_tokens: Special tokens of pictures, never sampled: in a completion they would stand for what is not
            there.
        language_linears: Regular expression of the language model's linear layers, to which LoRA's adapters go.
        tiny: Module with ``build_tiny``, see `marc.model.tiny`.
        frames_per_grid: Frames that the vision tower reads as one temporal grid; videos are read in such numbers.
    """

    name: str
    title: str
    model_type: str
    stock_model_type: str
    ours: Classes
    stock: StockClasses
    tower_part: str
    vision_tokens: tuple[str, ...]
    language_linears: str
    tiny: str
    tower_with_attention: str | None = None
    tower_that_merges: str | None = None
    frames_per_grid: int = FRAMES_PER_GRID

    def __post_init__(self) -> None:
        if self.frames_per_grid != FRAMES_PER_GRID:
            raise ValueError(
                f"{self.title}: videos are read {FRAMES_PER_GRID} frames a temporal grid, not {self.frames_per_grid}"
            )


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
    raise ValueError(f"a model of a known family ({known}) is needed, found {model_type!r}")


def family_of(thing: Any) -> Family:
    """The family of a model (ours or transformers'), of a configuration, or of a processor of ours.

    Raises:
        ValueError: If it is none of these.
    """
    model_type = getattr(getattr(thing, "config", thing), "model_type", None)
    if model_type is not None:
        return find_family(model_type)
    by_processor = {family.ours.names["processor"]: family for family in families()}
    for kind in type(thing).__mro__:
        if kind.__name__ in by_processor:
            return by_processor[kind.__name__]
    raise ValueError(f"a {type(thing).__name__} belongs to no model family")


def vision_token_ids(tokenizer: Any) -> list[int]:
    """Ids of the families' `Family.vision_tokens` that a tokenizer knows, in order."""
    vocabulary = tokenizer.get_vocab()
    tokens = {token for family in families() for token in family.vision_tokens}
    return sorted(vocabulary[token] for token in tokens & vocabulary.keys())
