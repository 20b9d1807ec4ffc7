"""Commands derive their options from option records: a new field of a record needs no other line of code."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from marc.cli.options import Given, Part, command
from marc.options import Limits, Named, check

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Paint:
    """How a wall is painted.

    Attributes:
        colour: Of the wall [all of it].
        coats: How many.
        gloss: Whether it shines.
    """

    colour: str | None = None
    coats: Annotated[int, Limits(least=1), Named("paint_coats")] = 2
    gloss: bool = False

    def __post_init__(self) -> None:
        check(self, "paint.")


def invoke(function, *arguments):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(function)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})


@pytest.fixture
def painted():
    calls = []

    @command("paint", old={"--layers": "--paint-coats"})
    def paint(
        wall: Annotated[str, typer.Argument()],
        *,
        fast: Annotated[bool, typer.Option("--fast")] = False,
        paint: Paint,
        given: Given,
    ) -> None:
        """Paint a wall."""
        given.refuse_beside("--fast", fast, Paint)
        calls.append((wall, paint))

    return paint, calls


def test_a_record_is_built_from_its_flags(painted):
    paint, calls = painted
    assert invoke(paint, "north").exit_code == 0
    assert invoke(paint, "south", "--colour", "red", "--paint-coats", 3, "--gloss").exit_code == 0
    assert calls == [("north", Paint()), ("south", Paint("red", 3, True))]


def test_the_help_shows_every_default_limit_and_bracket(painted):
    shown = " ".join(invoke(painted[0], "--help").output.replace("│", " ").split())
    for text in ("Paint a wall.", "Of the wall [all of it].", "[default: none]", "[default: 2]"):
        assert text in shown, text
    assert "How many. (a whole number >= 1)" in shown and "[default: no-gloss]" in shown
    assert "--layers" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--paint-coats", "0"], "marc paint: --paint-coats must be a whole number >= 1, got 0\n"),
        (["--paint-coats", "two"], "marc paint: --paint-coats must be a whole number >= 1, got 'two'\n"),
        (
            ["--fast", "--gloss", "--paint-coats", "2"],
            "marc paint: --fast leaves nothing for --paint-coats, --gloss to",
        ),
        (["--layers", "0"], "--paint-coats must be a whole number >= 1, got 0"),
    ],
)
def test_errors_name_what_was_typed(painted, arguments, message):
    said = invoke(painted[0], "north", *arguments)
    assert said.exit_code == 2 and message in said.output and not painted[1]


def test_an_old_spelling_works_and_warns(painted):
    said = invoke(painted[0], "north", "--layers", 5)
    assert painted[1] == [("north", Paint(coats=5))]
    assert said.stderr == "marc paint: --layers is now --paint-coats and will go with the next release\n"


def test_what_is_not_given_is_left_to_something_else():
    seen = []

    @command("touch-up")
    def touch_up(
        *,
        paint: Annotated[dict[str, Any], Part(record=Paint, otherwise="the wall's", defaults={"gloss": True})],
    ) -> None:
        """Paint what is there."""
        seen.append(paint)

    invoke(touch_up)
    invoke(touch_up, "--colour", "none", "--no-gloss")
    assert seen == [{}, {"colour": None, "gloss": False}]
    shown = invoke(touch_up, "--help").output
    assert shown.count("(the wall's)") == 2 and "[default: gloss]" in shown


def test_a_command_may_take_a_part_with_other_defaults():
    seen = []

    @command("prime")
    def prime(*, paint: Annotated[Paint, Part(("coats",), defaults={"coats": 1}, helps={"coats": "Thin ones."})]):
        """Prime a wall."""
        seen.append(paint)

    invoke(prime)
    assert seen == [Paint(coats=1)]
    shown = invoke(prime, "--help").output
    assert "Thin ones." in shown and "[default: 1]" in shown and "--colour" not in shown


ONE_FIELD_MORE = '''
import io, json, sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Annotated

import marc.compression.config as config
from marc.options import Limits

@dataclass(frozen=True)
class CompressionConfig(config.CompressionConfig):
    """Compression, and one option more.

    Attributes:
        sharpness: How sharp what remains is.
    """

    sharpness: Annotated[float, Limits(least=0, most=1)] = 0.25

config.CompressionConfig = CompressionConfig

from typer.testing import CliRunner
from marc.cli import app
from marc.cli.reference import reference
from marc.training import run

said = {"reference": reference()}
for name in ("ask", "eval", "bench"):
    words = [name, "video", "question"] if name == "ask" else [name]
    said[name] = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "150"}).output
    said[f"wrong {name}"] = CliRunner().invoke(app, [*words, "--sharpness", "2"]).output
for name, words in {"recipe": [], "typed": ["--sharpness", "1"], "wrong recipe": ["--sharpness", "2"]}.items():
    try:
        options, _ = run.read_options(run.RunOptions, run.VideoSFTConfig, ["--config", sys.argv[1], *words])
        said[name] = options.compression
    except ValueError as error:
        said[name] = str(error)
with redirect_stdout(io.StringIO()) as shown:
    try:
        run.run_grpo(["--help"])
    except SystemExit:
        said["recipe help"] = shown.getvalue()
json.dump(said, sys.stdout)
'''


@pytest.fixture(scope="module")
def with_one_field_more(tmp_path_factory):
    """What commands, recipes and the reference say where `CompressionConfig` has one field more and nothing else."""
    folder = tmp_path_factory.mktemp("field")
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"output_dir: {folder}\nbf16: false\nsharpness: 0.5\n")
    command = [sys.executable, "-c", ONE_FIELD_MORE, str(recipe)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", ["ask", "eval", "bench"])
def test_a_new_field_of_the_compression_reaches_every_command(with_one_field_more, name):
    shown = " ".join(with_one_field_more[name].replace("│", " ").split())
    assert "--sharpness NUMBER How sharp what remains is. (a number in [0, 1])" in shown
    assert with_one_field_more[f"wrong {name}"] == f"marc {name}: --sharpness must be a number in [0, 1], got 2.0\n"


def test_a_new_field_of_the_compression_reaches_recipes(with_one_field_more):
    assert with_one_field_more["recipe"] == {"sharpness": 0.5}
    assert with_one_field_more["typed"] == {"sharpness": 1.0}
    assert with_one_field_more["wrong recipe"] == "sharpness must be a number in [0, 1], got 2.0"
    shown = " ".join(with_one_field_more["recipe help"].split())
    assert "--sharpness SHARPNESS How sharp what remains is. Not given: the checkpoint's." in shown


def test_a_new_field_of_the_compression_reaches_the_reference(with_one_field_more):
    row = "| `sharpness` | a number in [0, 1] | 0.25 | How sharp what remains is. |"
    assert row in with_one_field_more["reference"]
