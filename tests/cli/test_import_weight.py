"""What is not used is not imported: modules are counted, as seconds would depend on the machine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from marc.cli import app

CLIP = "clip.mp4"
ASKED = "What happens in the plain scene?"
PRINT_MODULES = """
import atexit, json, sys
atexit.register(lambda: print("modules", json.dumps(sorted({*sys.modules})), file=sys.stderr))
from marc.cli import main
main()
"""
HELPS = """
import json, sys
from typer.testing import CliRunner
from marc.cli import app
for command in json.load(sys.stdin):
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0 and "--help" in result.output, (command, result.output)
print(json.dumps(sorted({*sys.modules})))
"""
HEAVY = {
    *("torch", "transformers", "trl", "datasets", "accelerate", "deepspeed"),
    *("open_clip", "timm", "torchvision", "wandb", "lancedb", "pandas", "scipy", "matplotlib"),
}


def commands(group: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and group of commands, as it is typed."""
    yield path
    for command in group.registered_commands:
        yield (*path, command.name or command.callback.__name__.replace("_", "-"))
    for inner in group.registered_groups:
        yield from commands(inner.typer_instance, (*path, inner.name))


def modules_of(folder: Path, *arguments: str) -> set[str]:
    """The modules that a command has imported when it ends."""
    environment = {**os.environ, "MARC_LIBRARY": str(folder / "library"), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", PRINT_MODULES, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("modules "))
    return set(json.loads(line.removeprefix("modules ")))


def test_no_help_imports_anything_heavy():
    typed = list(commands(app))
    assert {("ask",), ("train", "grpo"), ("world", "train-embedder"), ()} <= set(typed)
    result = subprocess.run(
        [sys.executable, "-c", HELPS], input=json.dumps(typed), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    imported = set(json.loads(result.stdout))
    assert not imported.intersection(HEAVY)
    assert len(imported) < 1000


@pytest.fixture(scope="module")
def remembered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a generated video that is remembered."""
    folder = tmp_path_factory.mktemp("remembered")
    clip, environment = str(folder / CLIP), {"MARC_LIBRARY": str(folder / "library")}
    for arguments in (["world", "sample", clip], ["remember", clip, "--segmenter", "uniform"]):
        result = CliRunner().invoke(app, arguments, env=environment)
        assert result.exit_code == 0, result.output
    return folder


def test_recall_imports_neither_pictures_nor_models_code(remembered: Path):
    imported = modules_of(remembered, "recall", ASKED)
    unused = {"open_clip", "timm", "wandb", "torchvision", "transformers", "trl", "av", "torch._dynamo", "scipy"}
    assert not imported.intersection(unused)


def test_a_question_about_a_remembered_video_imports_no_image_encoder(remembered: Path):
    imported = modules_of(remembered, "ask", CLIP, ASKED, "--segmenter", "uniform")
    unused = {"open_clip", "timm", "wandb", "lancedb", "trl", "datasets", "deepspeed", "bitsandbytes", "matplotlib"}
    assert not imported.intersection(unused)
