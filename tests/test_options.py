"""Option records: what they declare, and that commands, recipes and docs take it over by themselves."""

import re
from dataclasses import dataclass, fields
from typing import Annotated, Literal

import pytest

from marc.compression.config import CompressionConfig
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.options import (
    Limits,
    Named,
    OptionError,
    Values,
    build,
    changes,
    check,
    explained,
    helps_of,
    options_of,
    records_of,
    values_from,
    with_options_of,
)
from marc.types import GenerationOptions, ModelOptions
from marc.video.options import FrameOptions
from marc.world.options import WorldOptions

RECORDS = (
    CompressionConfig,
    FrameOptions,
    GenerationOptions,
    MemoryOptions,
    ModelOptions,
    RetrievalOptions,
    WorldOptions,
)


@dataclass(frozen=True)
class Smoothing:
    """How scores are smoothed.

    Attributes:
        width: Of the window, in ``frames``; None: no
            smoothing.
        kind: Its shape.
        share: Of the old value.
        stages: Widths by time.
    """

    width: Annotated[int | None, Limits(least=1)] = 3
    kind: Annotated[Literal["flat", "round"], Named("smoothing_kind")] = "flat"
    share: Annotated[float, Limits(above=0, most=1)] = 0.5
    stages: int | tuple[tuple[int, int], ...] | Literal["auto"] = "auto"
    mirror: bool = False

    def __post_init__(self) -> None:
        check(self, "smoothing.")


def by_flag(option):
    return option.flag


def test_an_option_is_what_its_field_says():
    width, kind, share, stages, mirror = options_of(Smoothing)
    assert (width.name, width.default, width.help) == ("width", 3, "Of the window, in frames; none: no smoothing.")
    assert str(width.values) == "a whole number >= 1 or none"
    assert (kind.field, kind.name, kind.flag) == ("kind", "smoothing_kind", "--smoothing-kind")
    assert str(kind.values) == "one of flat, round"
    assert str(share.values) == "a number in (0, 1]"
    assert str(stages.values) == "a whole number or a schedule such as 4:16,8:4 or auto"
    assert mirror.values.is_switch and mirror.help == ""


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("width", "5", 5),
        ("width", "none", None),
        ("width", "null", None),
        ("kind", "round", "round"),
        ("share", "1", 1.0),
        ("stages", "auto", "auto"),
        ("stages", "7", 7),
        ("stages", "4:16,8:4", ((4, 16), (8, 4))),
        ("mirror", "True", True),
        ("width", 2, 2),
    ],
)
def test_text_is_read(field, text, value):
    assert getattr(build(Smoothing, {field: text}, by_flag), field) == value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": "0"}, "--width must be a whole number >= 1 or none, got 0"),
        ({"width": "wide"}, "--width must be a whole number >= 1 or none, got 'wide'"),
        ({"width": True}, "--width must be a whole number >= 1 or none, got True"),
        ({"kind": "square"}, "--smoothing-kind must be one of flat, round, got 'square'"),
        ({"share": "nan"}, "--share must be a number in (0, 1], got nan"),
        ({"share": "1.5"}, "--share must be a number in (0, 1], got 1.5"),
        ({"share": "none"}, "--share must be a number in (0, 1], got 'none'"),
        ({"stages": "4:16,8"}, "--stages must be a whole number or a schedule such as 4:16,8:4 or auto"),
        ({"mirror": "maybe"}, "--mirror must be true or false"),
    ],
)
def test_what_is_wrong_is_called_as_the_user_calls_it(values, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        build(Smoothing, values, by_flag)


def test_a_record_checks_itself():
    with pytest.raises(OptionError, match=r"^smoothing\.share must be a number in \(0, 1\], got 2$"):
        Smoothing(share=2)


def test_what_a_record_refuses_as_a_whole_is_named_too():
    @dataclass(frozen=True)
    class Span:
        first: int = 0
        last_one: int = 9

        def __post_init__(self) -> None:
            if self.first > self.last_one:
                raise ValueError("it ends before it begins")

    with pytest.raises(ValueError, match=r"^--first, --last-one: it ends before it begins$"):
        build(Span, {"first": "9", "last_one": "3"}, by_flag)


def test_given_values_are_read_and_checked():
    assert changes(Smoothing, {"width": "none"}, by_flag) == {"width": None}
    with pytest.raises(ValueError, match=r"^--share must"):
        changes(Smoothing, {"share": "0"}, by_flag)


def test_a_type_that_no_text_can_give_is_refused():
    with pytest.raises(TypeError, match="no option can be of the type"):
        Values.of(list[int])


@pytest.mark.parametrize("record", RECORDS)
def test_every_option_is_explained_and_its_default_allowed(record):
    for option in options_of(record):
        assert option.help.endswith("."), option
        assert option.values.allow(option.default), option
    assert {option.field for option in options_of(record)} == {field.name for field in fields(record)}


def test_no_two_records_of_a_command_share_a_name():
    names = [option.name for record in RECORDS if record is not WorldOptions for option in options_of(record)]
    assert len(names) == len(set(names))


def test_a_class_takes_over_the_fields_of_a_record():
    @explained
    @dataclass
    @with_options_of(Smoothing, otherwise="the file's", prefix="s_")
    class Open:
        """Options.

        Attributes:
            more: 100 % more.
        """

        more: int = 1

    @dataclass
    @with_options_of(Smoothing, only=("width", "share"), defaults={"share": 0.25}, helps={"width": "Wide."})
    class Closed:
        """Options."""

    assert records_of(Open) == records_of(Closed) == (Smoothing,) and records_of(int) == ()
    assert values_from(Open(), Smoothing, "s_") == {}
    assert values_from(Open(s_width="none", s_share=0.1), Smoothing, "s_") == {"width": "none", "share": 0.1}
    types = {field.name: field.type for field in fields(Open)}
    assert types["s_width"] == str | None and types["s_share"] == float | None
    assert types["s_smoothing_kind"] == Literal["flat", "round"] | None
    helps = {field.name: field.metadata["help"] for field in fields(Open)}
    assert helps["s_share"] == "Of the old value. Not given: the file's." and helps["more"] == "100 %% more."
    assert [(field.name, field.default, field.metadata["help"]) for field in fields(Closed)] == [
        ("width", 3, "Wide."),
        ("share", 0.25, "Of the old value."),
    ]


def test_help_of_a_class_includes_its_bases():
    @dataclass(frozen=True)
    class Wider(Smoothing):
        """More.

        Attributes:
            share: Of the new value.
        """

    assert helps_of(Wider)["share"] == "Of the new value."
    assert helps_of(Wider)["kind"] == "Its shape."
