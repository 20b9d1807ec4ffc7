"""`marc train METHOD --help` says what TRL's parser says, without asking it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from marc.cli import app, recipes

ROOT = Path(__file__).resolve().parents[2]


EACH_BY_ITSELF = """
import json, os, sys
import marc.training.run
from marc.cli.recipes import described
for method in sys.argv[1:]:
    child = os.fork()  # the parser narrows the types of the classes' fields for good
    if child == 0:
        print(json.dumps({method: described(method)}), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, method
"""


def test_what_is_written_is_what_the_parser_says():
    written = json.loads(recipes.WRITTEN.read_text(encoding="utf-8"))
    if written["versions"] != recipes.installed_versions():
        pytest.skip(f"written with {written['versions']}")
    ask = [sys.executable, "-c", EACH_BY_ITSELF, *recipes.METHODS]
    said = subprocess.run(ask, capture_output=True, text=True, check=True, cwd=ROOT)
    found = [json.loads(line) for line in said.stdout.splitlines()[-len(recipes.METHODS) :]]
    assert found == [{method: written[method]} for method in recipes.METHODS], "python -m marc.cli.recipes"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_options_of_ours_and_of_trl_with_their_defaults(flag: str):
    result = CliRunner().invoke(app, ["train", "grpo", flag])
    text = " ".join(result.output.split())
    assert result.exit_code == 0
    assert text.startswith("usage: marc train grpo --config RECIPE")
    for part in ("--num_generations NUM_GENERATIONS", "Weight of the retention reward", "(default: 0.3)"):
        assert part in text, part


def test_with_other_versions_the_parser_is_asked(monkeypatch: pytest.MonkeyPatch):
    told = [{"flags": ["--from_another_trl"], "nargs": None, "default": 7, "help": "New."}]
    monkeypatch.setattr(recipes, "installed_versions", lambda: {"transformers": "9", "trl": "9"})
    monkeypatch.setattr(recipes, "described", lambda method: told)
    result = CliRunner().invoke(app, ["train", "sft", "--help"])
    assert "--from_another_trl" in result.output
    assert "--learning_rate" not in result.output
