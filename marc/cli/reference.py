"""Writes docs/options.md: every option of commands and recipes, from where they are declared.

python -m marc.cli.reference > docs/options.md
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, fields
from typing import Any, get_args

import typer
from typer.models import ArgumentInfo, OptionInfo

from marc.cli import app
from marc.cli.options import VERBOSITY, Group
from marc.options import helps_of, options_of, records_of

INTRODUCTION = """# Options

Written by `python -m marc.cli.reference > docs/options.md`; do not edit.

Options are declared once, in records such as `CompressionConfig`, and taken over by commands and recipes: a command's
flag is the option's name with dashes (`--visual-tokens`), a recipe's key is the name itself (`visual_tokens`). `none`
is a value where it is named. What a command does not say about a model's compression stays as the model has it.

How many visual tokens a video may cost is a *budget*: `--budget` of commands, `budget` and `budgets` of recipes, and
any budget is a method of `marc eval`.

Every command takes `--quiet` (`-q`): neither progress nor remarks, only results and errors; and `--verbose` (`-v`):
what is done is logged on stderr, with `-vv` in detail. Both also stand before the command: `marc -q ask ...`.
"""

Row = tuple[str, str, str, str]


def reference() -> str:
    """The whole document."""
    commands = dict(_commands(app, "marc"))
    groups = {name: getattr(command.callback, "groups", {}).values() for name, command in commands.items()}
    parts = [INTRODUCTION, _budgets()]
    for record in dict.fromkeys(group.record for each in groups.values() for group in each):
        takers = [f"`{name}`" for name, each in groups.items() if any(group.record is record for group in each)]
        parts.append(_record(record, takers + (["recipes"] if _in_recipes(record) else [])))
    parts += ["## Commands\n", *(_command(name, command) for name, command in commands.items())]
    return "\n".join([*parts, *_recipes()])


def _commands(group: typer.Typer, path: str) -> Iterator[tuple[str, Any]]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield f"{path} {command.name or command.callback.__name__.replace('_', '-')}", command
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _commands(inner.typer_instance, f"{path} {inner.name}")


def _budgets() -> str:
    from marc.compression import config

    table = (config.__doc__ or "").partition("| budget")[2]
    return f"| budget{table.replace('``', '`').rstrip()}\n"


def _record(record: type, takers: Iterable[str]) -> str:
    rows = [
        (f"`{option.name}`", str(option.values), _default(option.default), option.help)
        for option in options_of(record)
    ]
    return f"## {record.__name__}\n\n{_summary(record)} Taken by {', '.join(takers)}.\n\n{_table(rows)}"


def _command(name: str, command: Any) -> str:
    groups: Iterable[Group] = getattr(command.callback, "groups", {}).values()
    derived = {*VERBOSITY, *(option.name for group in groups for option in group.options)}
    own = [
        row
        for parameter in inspect.signature(command.callback).parameters.values()
        if parameter.name not in derived and (row := _own(parameter))
    ]
    lines = [f"### {name}\n", f"{command.help or inspect.getdoc(command.callback)}\n"]
    if taken := [f"- {_taken(group)}" for group in groups]:
        lines.append("\n".join(["Takes the options of\n", *taken, ""]))
    return "\n".join([*lines, _table(own)] if own else lines)


def _taken(group: Group) -> str:
    """Which options of a record a command takes, and where it has its own defaults."""
    part = group.part
    text = f"`{group.record.__name__}`"
    if part.only:
        text += f": {', '.join(f'`{option.name}`' for option in group.options)}"
    if part.otherwise:
        text += f"; what is not given is {part.otherwise}"
    own = [
        f"`{option.name}` {_default(part.defaults[option.field])}"
        for option in group.options
        if option.field in part.defaults
    ]
    return f"{text}; by default {', '.join(own)}" if own else text


def _own(parameter: inspect.Parameter) -> Row | None:
    """A row for a parameter that a command declares itself; None for what the user does not see."""
    info = next((each for each in get_args(parameter.annotation) if isinstance(each, OptionInfo | ArgumentInfo)), None)
    if info is None or info.hidden:
        return None
    is_option = isinstance(info, OptionInfo)
    names = (*filter(None, [info.default if isinstance(info.default, str) else None]), *(info.param_decls or ()))
    name = ", ".join(names) or (f"--{parameter.name.replace('_', '-')}" if is_option else parameter.name.upper())
    required = parameter.default is inspect.Parameter.empty
    default = info.show_default if isinstance(info.show_default, str) else _default(parameter.default)
    return f"`{name}`", _kind(parameter), "required" if required else default, (info.help or "").replace("\\[", "[")


def _kind(parameter: inspect.Parameter) -> str:
    annotation = get_args(parameter.annotation)[0]
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return text.replace("pathlib.", "").replace("typing.", "").replace(" | None", "").replace("|", "or")


def _in_recipes(record: type) -> bool:
    from marc.training.config import VideoOptions
    from marc.training.run import RunOptions

    return record in (*records_of(RunOptions), *records_of(VideoOptions))


def _recipes() -> Iterator[str]:
    """What recipes know beside the records."""
    from marc.training.config import CGRPOConfig, TowerConfig, VideoOptions, VideoSFTConfig
    from marc.training.run import RunOptions, SFTRunOptions

    yield "## Recipes\n"
    yield (
        "Beside the options of records above (of `WorldOptions` with `world_` before their names), a recipe (`marc "
        "train grpo|sft|tower --config RECIPE`) has these, and all those of TRL's `GRPOConfig` or `SFTConfig`, or of "
        "transformers' `TrainingArguments`.\n"
    )
    for cls in (RunOptions, VideoOptions, SFTRunOptions, VideoSFTConfig, CGRPOConfig, TowerConfig):
        helps = helps_of(cls)
        annotations = inspect.get_annotations(cls)  # a field's own type may have been narrowed by TRL's parser
        own = [each for each in fields(cls) if each.name in annotations and each.name in helps]
        rows = [
            (f"`{each.name}`", _type(annotations[each.name]), _default(_default_of(each)), helps[each.name])
            for each in own
        ]
        yield f"### {cls.__name__}\n\n{_summary(cls)}\n\n{_table(rows)}"


def _type(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return text.replace("typing.", "").replace(" | None", "").replace("|", "or")


def _default_of(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _summary(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0].replace("`", "")


def _default(value: Any) -> str:
    names = {None: "none", False: "off", True: "on", "": "empty"}
    return names[value] if value is None or isinstance(value, bool) or value == "" else f"{value}"


def _table(rows: Iterable[Row]) -> str:
    lines = ["| option | value | default | what it is |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
