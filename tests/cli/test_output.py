import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from typer.testing import CliRunner

import marc.cli
from marc.cli import app
from marc.cli.output import echo, echo_json, make_console

RED = "\x1b[31mred\x1b]0;title\x07"
PRINTERS = {"marc.cli.output", "marc.cli.reference", "marc.cli.recipes"}
"""Who may print; the last two print what the package itself says."""


def test_nothing_of_the_command_prints_past_the_one_place():
    folder = Path(marc.cli.__file__).parent
    wrong = []
    for file in folder.glob("*.py"):
        if f"marc.cli.{file.stem}" in PRINTERS:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in (
                    "print",
                    "typer.echo",
                    "typer.secho",
                    "click.echo",
                    "Console",
                    "sys.stdout.write",
                    "sys.stderr.write",
                ):
                    wrong.append(f"{file.name}:{node.lineno}: {called}")
    assert not wrong, wrong


def test_echo_shows_what_a_terminal_would_obey(capsys):
    echo(f"{RED}\tand\nmore")
    echo(RED, err=True, nl=False)
    shown = "\\x1b[31mred\\x1b]0;title\\x07"
    assert tuple(capsys.readouterr()) == (f"{shown}\tand\nmore\n", shown)


def test_echo_does_not_fail_where_the_terminal_knows_few_characters():
    code = "from marc.cli.output import echo; echo('caf\\u00e9 \\udce9 \\u96fb')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert result.stdout == b"caf\\xe9 \\xe9 \\u96fb\n"


def test_json_stays_json(capsys):
    value = {"a\x7f": [RED, "caf\udce9", "\u2028é"]}
    echo_json(value)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isascii() and line.isprintable()
    assert json.loads(line) == value


def test_tables_and_bars_are_harmless(capsys):
    console = make_console()
    table = Table("name", title=RED)
    table.add_row(RED)
    console.print(table)
    console.print(RED, markup=False)
    console.out(RED)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\x07" not in shown
    assert shown.count("\\x1b]0;title") == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["forget", RED],
        ["ask", RED, "What?"],
        ["ask", f"--{RED}"],
        [RED],
        ["remember", f"@{RED}"],
        ["data", "check", RED, "clean.json"],
        ["eval", "--benchmark", RED],
        ["eval", "--method", RED],
        ["report", RED],
        ["train", "sft", "--config", RED],
        ["world", "measure", "--layout", RED],
    ],
)
def test_what_was_typed_comes_back_harmless(arguments, tmp_path, monkeypatch):
    """As with a file name that a shell's pattern has put there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MARC_LIBRARY", str(tmp_path / "library"))
    (tmp_path / "library").mkdir()
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code
    assert isinstance(result.exception, SystemExit), result.exception
    assert "\x1b" not in result.output and "\x07" not in result.output
    assert "x1b" in result.output


def test_errors_are_one_line(tmp_path):
    result = CliRunner().invoke(app, ["ask", str(tmp_path / "a\nmarc: all is well.mp4"), "What?"])
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.output


def test_a_traceback_is_harmless(monkeypatch, capsys):
    def broken():
        raise KeyError(RED)

    monkeypatch.setattr(marc.cli, "app", broken)
    with pytest.raises(SystemExit) as caught:
        marc.cli.main()
    said = capsys.readouterr().err
    assert caught.value.code == 1
    assert "Traceback" in said and "\x1b" not in said
