"""What holds for the project as a whole: its layers, its declared packages, its scripts and recipes, its wheel."""

import ast
import graphlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
TEST_COMMAND = ".venv/bin/python -m pytest"

# A module may import its own layer and those before it.
LAYERS = (
    {"types", "io"},
    {"video", "grading", "compression"},
    {"memory", "model", "data"},
    {"world", "inference", "rewards"},
    {"training", "evaluation"},
    {"cli"},
)
LAYER = {part: number for number, parts in enumerate(LAYERS) for part in parts}


def imported_names(path: Path) -> Iterator[str]:
    """Every absolute module that a file imports, also inside its functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(module: str) -> str | None:
    """The part of the package that `marc.<part>...` names, None for any other module."""
    package, _, rest = module.partition(".")
    if package != "marc" or not rest:
        return None
    return rest.partition(".")[0]


def part_imports() -> dict[str, set[str]]:
    """Which parts each part imports, itself left out; ``marc/__init__.py`` only hands names on and belongs to none."""
    imports: dict[str, set[str]] = {}
    for path in sorted((ROOT / "marc").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        part = part_of(module)
        if part is not None:
            others = {other for name in imported_names(path) if (other := part_of(name)) in LAYER}
            imports.setdefault(part, set()).update(others - {part})
    return imports


def test_every_part_has_a_layer():
    assert set(part_imports()) <= set(LAYER)


def test_no_part_imports_a_later_layer():
    wrong = [
        f"marc.{part} imports marc.{other}"
        for part, others in part_imports().items()
        for other in sorted(others)
        if LAYER[other] > LAYER[part]
    ]
    assert not wrong, wrong


def test_no_two_parts_import_each_other():
    list(graphlib.TopologicalSorter(part_imports()).static_order())


def test_compression_is_pure_mathematics():
    files = (ROOT / "marc" / "compression").rglob("*.py")
    roots = {name.partition(".")[0] for path in files for name in imported_names(path)}
    assert not roots & {"transformers", "trl", "peft", "accelerate"}


@pytest.mark.parametrize("module", ["marc", "marc.cli"])
def test_import_is_light(module: str):
    heavy = "{'torch', 'transformers', 'trl', 'av', 'decord', 'cv2', 'matplotlib', 'pandas', 'lancedb', 'open_clip'}"
    code = f"import sys, {module}; print(*sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert not loaded.strip()


def modules_of(requirement: str) -> set[str]:
    """The top-level modules of a declared package; of one that is not installed, those that its name suggests."""
    name = Requirement(requirement).name
    try:
        return {Path(file.parts[0]).name.partition(".")[0] for file in files(name) or []}
    except PackageNotFoundError:
        return {name.replace("-", "_")}


@pytest.mark.parametrize("folder", ["marc", "benchmarks", "experiments", "inference_script", "training_script", "tests"])
def test_imported_packages_are_declared(folder: str):
    extras = [extra for extra in EXTRAS if extra != "dev" or folder == "tests"]
    declared = [*PROJECT["dependencies"], *(requirement for extra in extras for requirement in EXTRAS[extra])]
    ours = {"marc", "benchmarks", "experiments", "tests", "tomllib"} | {path.stem for path in (ROOT / "tests").rglob("*.py")}
    known = ours.union(sys.stdlib_module_names, *map(modules_of, declared))
    undeclared = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / folder).rglob("*.py")
        for name in imported_names(path)
        if name.partition(".")[0] not in known
    }
    assert not undeclared, sorted(undeclared)


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
def test_the_lock_satisfies_what_is_declared(python: str):
    environment = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins: dict[str, Requirement] = {}
    for pin in (Requirement(line) for line in lines if not line.startswith("#")):
        if pin.marker is None or pin.marker.evaluate(environment):
            assert pin.name not in pins, f"{pin.name} is locked twice for Python {python}"
            pins[pin.name] = pin
    for requirement in map(Requirement, [*PROJECT["dependencies"], *EXTRAS["train"], *EXTRAS["dev"]]):
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
