"""What holds for the project as a whole: its declared packages and extras, its scripts and recipes, its wheel."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from imports import ROOT, imports_of, modules
from packages import CORE, EXTRAS, OPTIONAL, PROJECT, declared
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from marc.cli import app

BIN = Path(sys.executable).parent
TEST_COMMAND = ".venv/bin/python -m pytest"


FOLDERS = ["marc", "benchmarks", "experiments", "robustness", "inference_script", "training_script", "tests"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_imported_packages_are_declared(folder: str):
    for_users = folder in ("marc", "inference_script", "training_script")
    ours = {*FOLDERS, "tomllib", *(path.stem for path in (ROOT / "tests").rglob("*.py"))}
    known = {*ours, *sys.stdlib_module_names, *CORE, *declared(set(EXTRAS) - ({"dev"} if for_users else set()))}
    undeclared = {
        f"{path.relative_to(ROOT)}: {found.module}"
        for path in (ROOT / folder).rglob("*.py")
        for found in imports_of(path)
        if found.package not in known
    }
    assert not undeclared, sorted(undeclared)


# marc.training asks for its whole extra when it is imported; lmms-eval imports its plugin itself.
WITHIN_AN_EXTRA = {
    "marc.memory.tables": "library",
    "marc.serving.app": "serve",
    "marc.serving.errors": "serve",
    "marc.serving.fetching": "serve",
    "marc.serving.gate": "serve",
    "marc.serving.listening": "serve",
    "marc.serving.origins": "serve",
    "marc.serving.page": "serve",
    "marc.serving.requests": "serve",
    "marc.serving.vllm": "vllm",
    "marc.training": "train",
    "marc.evaluation.lmms_eval_plugin": "lmms-eval",
}


def test_packages_of_extras_are_imported_where_they_are_used_in_files_that_name_the_extra():
    wrong = []
    for module, path in modules().items():
        inside = {extra for start, extra in WITHIN_AN_EXTRA.items() if f"{module}.".startswith(f"{start}.")}
        named = {extra for found in imports_of(path) for extra in found.extras}
        for found in imports_of(path):
            extras = OPTIONAL.get(found.package, set())
            if extras and not found.for_types and not extras & inside and not (found.in_function and extras & named):
                wrong.append(f"{path.relative_to(ROOT)}:{found.line}: {found.module} of {sorted(extras)}")
    assert not wrong, wrong


def test_all_is_every_extra_that_can_be_installed_together():
    (requirement,) = map(Requirement, EXTRAS["all"])
    assert requirement.extras == set(EXTRAS) - {"all", "dev", "gpu", "lmms-eval", "vllm"}


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
def test_the_lock_satisfies_what_is_declared(python: str):
    environment = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins: dict[str, Requirement] = {}
    for pin in (Requirement(line) for line in lines if not line.startswith("#")):
        if pin.marker is None or pin.marker.evaluate(environment):
            assert pin.name not in pins, f"{pin.name} is locked twice for Python {python}"
            pins[pin.name] = pin
    extras = [requirement for extra in set(EXTRAS) - {"gpu", "lmms-eval", "vllm"} for requirement in EXTRAS[extra]]
    for requirement in map(Requirement, [*PROJECT["dependencies"], *extras]):
        if requirement.name == PROJECT["name"]:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        version = str(pins[canonicalize_name(requirement.name)].specifier).removeprefix("==")
        assert requirement.specifier.contains(version), f"{requirement} but {version} is locked for Python {python}"


def tracked_files() -> list[Path]:
    """The files under version control that exist and are text."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192]]


def test_no_file_names_one_machine():
    """No path of one person's disk, no address of a package index, no number in somebody's tracker."""
    local = re.compile(
        r"(?<![\w.~}])/(?:root|home|work|Users)/\w|(?:pypi|pythonhosted|npmjs)\.(?:org|com)|\bissues? #?\d", re.I
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in tracked_files()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if local.search(line)
    ]
    assert not found, found


def test_the_lock_names_no_address():
    assert "://" not in (ROOT / "requirements.lock").read_text()


def is_shell_script(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix == ".sh" or (not path.suffix and file.readline().startswith(b"#!/usr/bin/env bash"))


def test_shell_scripts_pass_shellcheck():
    scripts = [path for path in tracked_files() if is_shell_script(path)]
    assert ROOT / "setup.sh" in scripts
    assert ROOT / ".ci" / "run" in scripts
    result = subprocess.run(
        [BIN / "shellcheck", "--external-sources", *scripts], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_shell_scripts_stop_at_the_first_error():
    careless = [
        path for path in tracked_files() if is_shell_script(path) and "set -euo pipefail" not in path.read_text()
    ]
    assert not careless, careless


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """As the base class's, with the keys checked first."""
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        repeated = {key for key in keys if keys.count(key) > 1}
        if repeated:
            raise ValueError(f"{node.start_mark}: given twice: {repeated}")
        return super().construct_mapping(node, deep)


def recipes(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob(pattern))


@pytest.mark.parametrize("recipe", recipes("*.y*ml"))
def test_yaml_recipe_loads(recipe: str):
    content = yaml.load((ROOT / recipe).read_text(), Loader=StrictLoader)
    assert isinstance(content, dict)
    assert content


@pytest.mark.parametrize("recipe", recipes("*.json"))
def test_json_recipe_loads(recipe: str):
    assert json.loads((ROOT / recipe).read_text())


def test_a_repeated_yaml_key_is_refused():
    with pytest.raises(ValueError, match=r"given twice: .*tau"):
        yaml.load("tau: 0.6\nalpha: 0.3\ntau: 0.8\n", Loader=StrictLoader)


def test_the_documented_test_command_is_the_one_that_ci_runs():
    for name in ("README.md", "CONTRIBUTING.md", ".ci/run", "setup.sh"):
        assert TEST_COMMAND in (ROOT / name).read_text(), name


def test_the_wheel_holds_the_whole_package(tmp_path: Path):
    source, target = tmp_path / "source", tmp_path / "wheel"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "marc", source / "marc", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [BIN / "uv", "build", "--quiet", "--wheel", "--offline", "--no-build-isolation", "--out-dir", target, source],
        env={**os.environ, "VIRTUAL_ENV": str(BIN.parent)},
        check=True,
    )
    (wheel,) = target.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    expected = {str(path.relative_to(source)) for path in (source / "marc").rglob("*") if path.is_file()}
    assert expected <= packed, sorted(expected - packed)
    assert {name.partition("/")[0] for name in packed} == {"marc", f"marc_video-{PROJECT['version']}.dist-info"}


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    import marc

    assert marc.__version__ == version("marc-video")
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"marc {marc.__version__}\n")
