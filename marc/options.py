"""Option records: frozen dataclasses that are the only declaration of the project's options.

A record's fields say what its options are called, of what type they are and what they are by default; `Annotated` adds
`Limits`, and the name (`Named`) of an option that needs another one beside those of other records; the docstring's
``Attributes`` explains them. Commands (`marc.cli.options`), training recipes (`marc.training.recipe`) and
docs/options.md are derived from that, and `check` holds a record to it.

    @dataclass(frozen=True)
    class SmoothingOptions:
        \"\"\"How scores are smoothed.

Attributes:
            width: Of the window, in frames.
        \"\"\"

        width: Annotated[int, Limits(least=1)] = 3

        def __post_init__(self) -> None:
            check(self)
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from math import isfinite
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")

_RECORDS = "_option_records"

NONE_WORDS = ("none", "null")
"""How None is written."""


@dataclass(frozen=True)
class Limits:
    """Between which numbers a value must be.

    Attributes:
        least: Smallest one.
        above: All are larger.
        most: Largest one.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None

    def hold(self, value: float) -> bool:
        """Whether a value is finite and within."""
        return (
            isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
        )

    def __str__(self) -> str:
        if self.most is not None and self.above is not None:
            return f" in ({self.above:g}, {self.most:g}]"
        if self.most is not None and self.least is not None:
            return f" in [{self.least:g}, {self.most:g}]"
        sides = ((">=", self.least), (">", self.above), ("<=", self.most))
        return "".join(f" {sign} {number:g}" for sign, number in sides if number is not None)


@dataclass(frozen=True)
class Named:
    """The name of an option where it stands beside those of other records.

    Attributes:
        name: As in a recipe; a command's flag has dashes.
    """

    name: str


class OptionError(ValueError):
    """A value that an option cannot have.

    Attributes:
        field: The record's field.
        problem: What is wrong with it, to be put behind its name.
    """

    def __init__(self, field: str, problem: str, prefix: str = ""):
        super().__init__(f"{prefix}{field} {problem}")
        self.field, self.problem = field, problem


@dataclass(frozen=True)
class Values:
    """What an option may be.

    Attributes:
        kinds: Types; a `pairs` schedule is ``tuple``.
        words: Texts that stand for themselves, such as ``auto``.
        limits: Of numbers.
    """

    kinds: tuple[type, ...]
    words: tuple[str, ...] = ()
    limits: Limits = Limits()

    @classmethod
    def of(cls, annotation: Any) -> Values:
        """Those of a type annotation.

        Raises:
            TypeError: If no text could be read as such a value.
        """
        kinds: list[type] = []
        words: list[str] = []
        limits = Limits()
        if get_origin(annotation) is Annotated:
            annotation, *notes = get_args(annotation)
            limits = next((note for note in notes if isinstance(note, Limits)), limits)
        for one in get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,):
            if get_origin(one) is Literal:
                words += get_args(one)
            elif get_origin(one) is tuple:
                kinds.append(tuple)
            elif one in (bool, int, float, str, Path, NoneType):
                kinds.append(one)
            else:
                raise TypeError(f"no option can be of the type {one}")
        return cls(tuple(kinds), tuple(words), limits)

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off."""
        return bool in self.kinds

    @property
    def may_be_none(self) -> bool:
        """Whether None is a value."""
        return NoneType in self.kinds

    def __str__(self) -> str:
        names = {
            bool: "true or false",
            int: f"a whole number{self.limits}",
            float: f"a number{self.limits}",
            tuple: "a schedule such as 4:16,8:4",
            str: "text",
            Path: "a path",
        }
        plain = [names[kind] for kind in self.kinds if kind is not NoneType]
        words = [*self.words, *(["none"] if self.may_be_none else [])]
        if not plain and len(words) > 1:
            return f"one of {', '.join(words)}"
        return " or ".join([*plain, *words])

    def word_type(self, is_open: bool = False) -> Any:
        """The type of one word that is to be read: plain where that is enough, else ``str``, see `read`.

        Args:
            is_open: Whether None is to be told from not being given.
        """
        kinds = [kind for kind in self.kinds if kind is not NoneType]
        if len(kinds) + bool(self.words) > 1 or tuple in kinds or Path in kinds or (is_open and self.may_be_none):
            return str
        return kinds[0] if kinds else Literal[self.words]

    def allow(self, value: Any) -> bool:
        """Whether a value is one of them."""
        if isinstance(value, bool):
            return bool in self.kinds
        if isinstance(value, int | float):
            numeric = float in self.kinds or (int in self.kinds and isinstance(value, int))
            return numeric and self.limits.hold(value)
        return isinstance(value, self.kinds) or (isinstance(value, str) and value in self.words)

    def read(self, text: Any) -> Any:
        """A value from text; what is no text is taken as it is.

        Raises:
            ValueError: If it cannot be read.
        """
        if not isinstance(text, str) or text in self.words:
            return text
        if self.may_be_none and text.lower() in NONE_WORDS:
            return None
        for kind in self.kinds:
            if kind is not NoneType:
                try:
                    return _READERS[kind](text)
                except (KeyError, ValueError):
                    continue
        raise ValueError(f"must be {self}, got {text!r}")


@dataclass(frozen=True)
class Option:
    """One option of a record.

    Attributes:
        name: See `Named`; the field's name by default.
        field: The record's field.
        values: What it may be.
        default: What it is if nothing is said.
        help: What it does.
    """

    name: str
    field: str
    values: Values
    default: Any
    help: str

    @property
    def flag(self) -> str:
        """As it is typed behind a command."""
        return f"--{self.name.replace('_', '-')}"


def options_of(record: type) -> tuple[Option, ...]:
    """The options that a record declares, in the order of its fields."""
    key: Any = record  # to mypy, classes cannot be hashed
    return _options_of(key)


@cache
def _options_of(record: Any) -> tuple[Option, ...]:
    hints, helps = get_type_hints(record, include_extras=True), helps_of(record)
    options = []
    for each in fields(record):
        hint = hints[each.name]
        notes = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        name = next((note.name for note in notes if isinstance(note, Named)), each.name)
        default = each.default if each.default_factory is MISSING else each.default_factory()
        options.append(Option(name, each.name, Values.of(hint), default, helps.get(each.name, "")))
    return tuple(options)


def helps_of(record: type) -> dict[str, str]:
    """What the docstring of a class (and of those that it is made from) says about each of its ``Attributes``."""
    helps: dict[str, str] = {}
    for each in reversed(record.__mro__):
        section = re.search(r"^Attributes:\n((?:    .*\n?|\n)*)", inspect.cleandoc(each.__doc__ or ""), re.MULTILINE)
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE):
            helps[name] = re.sub(r"\bNone\b", "none", re.sub(r"`{1,2}", "", " ".join(text.split())))
    return helps


def check(record: Any, prefix: str = "") -> None:
    """Holds a record to what it declares.

    Args:
        record: An instance.
        prefix: Before the field's name in messages.

    Raises:
        OptionError: If a value has the wrong type or is out of its limits.
    """
    for option in options_of(type(record)):
        value = getattr(record, option.field)
        if not option.values.allow(value):
            raise OptionError(option.field, f"must be {option.values}, got {value!r}", prefix)


def build(record: type[Record], values: Mapping[str, Any], name: Callable[[Option], str]) -> Record:
    """A record from values by field, which may still be text.

    Args:
        record: Which one.
        values: Of the fields that are not left at their defaults.
        name: What the user calls an option.

    Raises:
        ValueError: If one is wrong; the message begins with what the user calls it.
    """
    known = {option.field: option for option in options_of(record)}
    read = {}
    for key, value in values.items():
        try:
            read[key] = known[key].values.read(value)
        except ValueError as error:
            raise ValueError(f"{name(known[key])} {error}") from error
    try:
        return record(**read)
    except OptionError as error:
        raise ValueError(f"{name(known[error.field])} {error.problem}") from error
    except ValueError as error:
        raise ValueError(f"{', '.join(name(known[key]) for key in read)}: {error}") from error


def changes(record: type, values: Mapping[str, Any], name: Callable[[Option], str]) -> dict[str, Any]:
    """Values by field, read and checked as `build` does, without those that are not given."""
    built: Any = build(record, values, name)
    return {key: getattr(built, key) for key in values}


def with_options_of(
    record: type,
    *,
    only: tuple[str, ...] = (),
    otherwise: str | None = None,
    prefix: str = "",
    defaults: Mapping[str, Any] | None = None,
    helps: Mapping[str, str] | None = None,
) -> Callable[[type], type]:
    """Gives a class, before `dataclass` sees it, a field for each option of a record, by the option's name.

    The fields have types that an argument parser can read one word into; `values_from` reads them back.

    Args:
        record: Which one.
        only: The record's fields that are taken; empty: all.
        otherwise: What holds as long as options are not given, such as ``"the checkpoint's"``; the fields are then
            None.
        prefix: Before the options' names.
        defaults: By field, where they are not the record's.
        helps: By field, likewise.
    """

    def derive(cls: type) -> type:
        annotations: dict[str, Any] = {}
        for option in options_of(record):
            if only and option.field not in only:
                continue
            plain = option.values.word_type(is_open=otherwise is not None)
            default = None if otherwise else (defaults or {}).get(option.field, option.default)
            text = (helps or {}).get(option.field, option.help) + (f" Not given: {otherwise}." if otherwise else "")
            annotations[prefix + option.name] = plain if default is not None else plain | None
            setattr(cls, prefix + option.name, field(default=default, metadata={"help": text.replace("%", "%%")}))
        cls.__annotations__ = {**annotations, **inspect.get_annotations(cls)}
        setattr(cls, _RECORDS, (record, *records_of(cls)))
        return cls

    return derive


def records_of(cls: type) -> tuple[type, ...]:
    """The records whose options a class takes over by `with_options_of`."""
    records: tuple[type, ...] = getattr(cls, _RECORDS, ())
    return records


def explained(cls: type[Record]) -> type[Record]:
    """Gives a dataclass's own fields the help of its docstring, for argument parsers that read their metadata."""
    helps = helps_of(cls)
    for each in fields(cls):  # type: ignore[arg-type]
        if each.name in cls.__annotations__ and each.name in helps and "help" not in each.metadata:
            each.metadata = MappingProxyType({**each.metadata, "help": helps[each.name].replace("%", "%%")})
    return cls


def values_from(holder: Any, record: type, prefix: str = "") -> dict[str, Any]:
    """What a holder of fields made by `with_options_of` says about a record's fields, where it is not None."""
    found = {option.field: getattr(holder, prefix + option.name, None) for option in options_of(record)}
    return {key: value for key, value in found.items() if value is not None}


def _switch(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _schedule(text: str) -> tuple[tuple[int, int], ...]:
    stages = [stage.split(":") for stage in text.split(",")]
    return tuple((int(first), int(second)) for first, second in stages)


_READERS: dict[type, Callable[[str], Any]] = {
    bool: _switch,
    int: int,
    float: float,
    tuple: _schedule,
    str: str,
    Path: Path,
}
