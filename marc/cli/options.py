"""Commands whose options are those of option records (`marc.options`), beside their own.

A command is a function. A parameter that is annotated with an option record stands for all options of that record: the
user sees a flag for each, the function receives the record, built and checked. `Part` narrows that. A parameter of the
type `Given` receives which options were given.

    @command("smooth", old={"--size": "--width"})
    def smooth(file: Annotated[Path, typer.Argument()], *, smoothing: SmoothingOptions, given: Given) -> None:

Typer reads a function's signature; `command` writes one. It was chosen over tyro, which derives as much from records,
but knows neither options that keep a model's own setting unless they are given nor old spellings that warn, and names
a record instead of the option where a record refuses a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from inspect import Parameter, Signature, signature
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from marc.cli.errors import user_errors
from marc.cli.verbosity import Quiet, Verbose, remark, set_verbosity
from marc.compression.config import CompressionConfig, budget_fields, parse_budget
from marc.options import Option, build, changes, options_of
from marc.video.limits import current_limits, limits_of
from marc.video.options import DecodeLimits, FrameOptions

Budget = Annotated[
    str | None,
    typer.Option(
        help="What a video may cost: full, events, events:N, frames, frames:N (N temporal grids' worth), tokens:N, "
        "prompt:N (N tokens in the prompt), auto or auto:N (N tokens an event; of single cells N times the square "
        "root of their number, twice that where a question counts, half for a moment that was found).",
        metavar="BUDGET",
        rich_help_panel="Compression options",
    ),
]
_CONTEXT = "context"
_LIMITS = "decode_limits"
VERBOSITY = ("verbose", "quiet")
"""What every command takes beside its own."""
_TYPE_NAMES = {int: "INTEGER", float: "NUMBER", tuple: "A:B,...", str: "TEXT", Path: "PATH", NoneType: "none"}


@dataclass(frozen=True)
class Part:
    """Which options of a record a command takes: a note in the `Annotated` type of a parameter.

    Attributes:
        only: Their fields; empty: all.
        record: Which one, if the parameter's type is not the record.
        otherwise: What holds instead of options that are not given, such as ``"the model's"``: the command then
            receives a dict of the given ones, by field.
        defaults: By field, where they are not the record's.
        helps: By field, likewise.
    """

    only: tuple[str, ...] = ()
    record: type | None = None
    otherwise: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    helps: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Given:
    """The options that were given.

    Attributes:
        names: As of `Option.name` or a command's parameter.
    """

    names: frozenset[str]

    def flags(self, *options: type | str) -> list[str]:
        """The given ones among some records' options and names, as they are typed."""
        names: list[str] = []
        for one in options:
            names += [one] if isinstance(one, str) else [option.name for option in options_of(one)]
        return [f"--{name.replace('_', '-')}" for name in names if name in self.names]

    def refuse_beside(self, switch: str, is_on: bool, *options: type | str) -> None:
        """Refuses options that a switch makes void.

        Raises:
            ValueError: Naming them.
        """
        if is_on and (flags := self.flags(*options)):
            raise ValueError(f"{switch} leaves nothing for {', '.join(flags)} to do; leave one of them out")


def command(
    name: str, *, old: Mapping[str, str] | None = None, decodes: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a command of a function: see the module's docstring.

    What it raises for the user (`ValueError`, `OSError`) becomes a line on stderr.

    Args:
        name: Behind ``marc``.
        old: Spellings of earlier releases, each with the flag that replaces it; they work and warn.
        decodes: Whether it decodes files, so that it takes the options of `DecodeLimits`, which hold while it runs.
            Every command with options of `FrameOptions` does.
    """

    def derive(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        groups = {name: group for name, hint in hints.items() if (group := _group(hint))}
        if decodes or any(group.record is FrameOptions for group in groups.values()):
            groups[_LIMITS] = Group(DecodeLimits, Part())
        wants_given = next((name for name, hint in hints.items() if hint is Given), None)
        renamed = {_old_name(spelling): (spelling, flag) for spelling, flag in (old or {}).items()}

        def run(**values: Any) -> None:
            context, verbose, quiet = (values.pop(each) for each in (_CONTEXT, *VERBOSITY))
            names = {each for each in values if context.get_parameter_source(each).name != "DEFAULT"}
            with user_errors(f"marc {name}"):
                if verbose or quiet:
                    set_verbosity(verbose, quiet)
                for each, (spelling, flag) in renamed.items():
                    _take_old(values, names, each, (spelling, flag), f"marc {name}")
                for parameter, group in groups.items():
                    values[parameter] = group.collect(values, names)
                if wants_given:
                    values[wants_given] = Given(frozenset(names))
                with limits_of(_limits(values.pop(_LIMITS, None), names)):
                    function(**values)

        own = [
            parameter.replace(annotation=hints[parameter.name], kind=Parameter.KEYWORD_ONLY)
            for parameter in signature(function).parameters.values()
            if parameter.name not in groups and parameter.name != wants_given
        ]
        derived = [parameter for group in groups.values() for parameter in group.parameters()]
        hidden = [_hidden(each, spelling) for each, (spelling, _) in renamed.items()]
        context = Parameter(_CONTEXT, Parameter.KEYWORD_ONLY, annotation=typer.Context)
        described: Any = run
        described.__signature__ = Signature([context, *own, *derived, *hidden, *_verbosity()])
        described.__annotations__ = {
            each.name: each.annotation for each in described.__signature__.parameters.values()
        }
        described.__name__, described.__doc__ = function.__name__, function.__doc__
        described.groups = groups
        return run

    return derive


def _limits(chosen: DecodeLimits | None, given: set[str]) -> DecodeLimits:
    """Those that hold, but for what was given to a command."""
    fields = [option.field for option in options_of(DecodeLimits) if option.name in given]
    return replace(current_limits(), **{field: getattr(chosen, field) for field in fields})


@dataclass(frozen=True)
class Group:
    """The options of a record that stand behind one parameter of a command."""

    record: type
    part: Part

    @property
    def options(self) -> list[Option]:
        """Those that the command takes."""
        return [option for option in options_of(self.record) if not self.part.only or option.field in self.part.only]

    def parameters(self) -> list[Parameter]:
        """What typer is to see of them."""
        return [self._parameter(option) for option in self.options]

    def collect(self, values: dict[str, Any], given: set[str]) -> Any:
        """Takes this record's values out of all values: the record, or a dict of what was given; either is checked."""
        texts = {option.field: values.pop(option.name) for option in self.options}
        chosen = {option.field: texts[option.field] for option in self.options if option.name in given}
        if self.part.otherwise is None:
            return build(self.record, {**self.part.defaults, **chosen}, lambda option: option.flag)
        return changes(self.record, chosen, lambda option: option.flag)

    def _parameter(self, option: Option) -> Parameter:
        values, part = option.values, self.part
        is_open = part.otherwise is not None and option.field not in part.defaults
        default = part.defaults.get(option.field, option.default)
        limits = f" ({values})" if str(values.limits) else ""
        declared = typer.Option(
            f"{option.flag}/--no-{option.flag[2:]}" if values.is_switch else option.flag,
            metavar=None if values.is_switch else "|".join([*map(_type_name, values.kinds), *values.words]),
            help=(part.helps.get(option.field, option.help) + limits).replace("[", r"\["),
            show_default=part.otherwise if is_open and part.otherwise else True,
            rich_help_panel=_panel(self.record),
        )
        if values.is_switch:
            annotation, written = Annotated[bool | None, declared], default
        else:
            annotation, written = Annotated[str | None, declared], "none" if default is None else str(default)
        return Parameter(
            option.name, Parameter.KEYWORD_ONLY, annotation=annotation, default=None if is_open else written
        )


def compression_changes(given: Given, changes: dict[str, Any], budget: str | None) -> dict[str, Any]:
    """What replaces a model's compression, see `marc.compression.config.override_compression`.

    Args:
        given: Which options were given.
        changes: Fields of `CompressionConfig` that were given.
        budget: What `Budget` gave.

    Raises:
        ValueError: If the budget is none, or leaves nothing for an option to do.
    """
    if budget is None:
        return changes
    try:
        parse_budget(budget, CompressionConfig())
    except ValueError as error:
        raise ValueError(f"--budget: {error}") from error
    given.refuse_beside(f"--budget {budget}", True, *budget_fields(budget, changes.get("layout")))
    return {**changes, "budget": budget}


def _group(hint: Any) -> Group | None:
    """The record that a parameter's type stands for, if it does."""
    notes: list[Any] = []
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
    part = next((note for note in notes if isinstance(note, Part)), Part())
    record = part.record or hint
    is_record = isinstance(record, type) and is_dataclass(record) and record is not Given
    return Group(record, part) if is_record else None


def _take_old(values: dict[str, Any], given: set[str], name: str, spellings: tuple[str, str], command: str) -> None:
    """Puts what an old spelling says where the new one is read, with a warning."""
    text, (old, new) = values.pop(name), spellings
    if text is None:
        return
    current = new.removeprefix("--").replace("-", "_")
    if current in given:
        raise ValueError(f"{old} is the old spelling of {new}; leave it out")
    remark(f"{command}: {old} is now {new} and will go with the next release")
    values[current] = text
    given.remove(name)
    given.add(current)


def _old_name(spelling: str) -> str:
    return "old_" + spelling.removeprefix("--").replace("-", "_")


def _hidden(name: str, spelling: str) -> Parameter:
    declared = typer.Option(spelling, hidden=True)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, declared])


def _verbosity() -> list[Parameter]:
    declared = zip(VERBOSITY, (Verbose, Quiet), (0, False), strict=True)
    return [Parameter(name, Parameter.KEYWORD_ONLY, default=off, annotation=kind) for name, kind, off in declared]


def _type_name(kind: type) -> str:
    return _TYPE_NAMES[kind]


def _panel(record: type) -> str:
    """Under which heading a record's options stand."""
    return f"{record.__name__.removesuffix('Config').removesuffix('Options')} options"
