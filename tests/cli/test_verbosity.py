"""`-q` and `-v` say less or more, before the command or among its options."""

import logging
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from marc.cli import _about
from marc.cli.options import command
from marc.cli.progress import share_bar
from marc.cli.verbosity import is_quiet, remark, set_verbosity

logger = logging.getLogger("marc.example")


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    yield
    set_verbosity(0, False)
    logging.getLogger("marc").setLevel(logging.NOTSET)


def example():
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(_about)

    @command("paint", old={"--layers": "--coats"})
    def paint(*, coats: Annotated[int, typer.Option(help="How many.")] = 1) -> None:
        """Paint."""
        logger.debug("bristles")
        logger.info("painting")
        logger.warning("the wall is wet")
        remark("a remark")
        with share_bar("walls") as progress:
            progress(1.0)
        typer.echo(f"{coats} coats")

    app.command()(paint)
    app.command()(command("nothing")(lambda: None))
    return app


def said(*arguments):
    result = CliRunner().invoke(example(), arguments)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_remarks_and_progress_are_said_by_default_on_stderr():
    output, errors = said("paint", "--layers", "2")
    assert output == "2 coats\n"
    assert "a remark" in errors and "walls" in errors and "--layers is now --coats" in errors
    assert "painting" not in errors


def test_a_bar_that_never_appeared_leaves_nothing(capsys):
    with share_bar("walls"):
        pass
    with pytest.raises(ValueError, match="no paint"), share_bar("walls"):
        raise ValueError("no paint")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("arguments", [("-q", "paint"), ("--quiet", "paint"), ("paint", "-q"), ("paint", "--quiet")])
def test_quiet_leaves_the_result(arguments):
    assert said(*arguments, "--layers", "2") == ("2 coats\n", "")


@pytest.mark.parametrize("arguments", [("-v", "paint"), ("paint", "--verbose"), ("paint", "-v")])
def test_verbose_says_what_is_done(arguments):
    output, errors = said(*arguments)
    assert output == "1 coats\n"
    assert "marc.example: painting" in errors and "the wall is wet" in errors and "bristles" not in errors


@pytest.mark.parametrize("arguments", [("-vv", "paint"), ("paint", "-v", "-v")])
def test_twice_verbose_says_it_in_detail(arguments):
    assert "marc.example: bristles" in said(*arguments)[1]


def test_the_next_command_is_as_if_nothing_had_been_said():
    assert "painting" in said("-v", "paint")[1]
    said("paint", "-q")
    assert is_quiet()
    errors = said("paint")[1]
    assert "a remark" in errors and "painting" not in errors


@pytest.mark.parametrize("arguments", [("-q", "-v", "paint"), ("paint", "-qv")])
def test_both_at_once_are_refused_in_a_line(arguments):
    result = CliRunner().invoke(example(), arguments)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "--quiet leaves nothing for --verbose to say" in result.stderr
