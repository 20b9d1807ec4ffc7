"""How the package is built: layers, no circles, what is imported when, short functions, one way to write a file."""

import ast
import graphlib
import subprocess
import sys

import pytest
from imports import ROOT, imports_of, module_graph, modules, part_of

# A part may import its own layer and those before it.
LAYERS = (
    {"types", "records", "io", "terminal", "extras", "lazy", "version"}
    | {"hub", "options", "threads", "interpreter", "cluster"},
    {"video", "grading", "compression"},
    {"memory", "model", "data"},
    {"world", "inference", "rewards"},
    {"training", "evaluation", "serving"},
    {"cli"},
)
LAYER = {part: number for number, parts in enumerate(LAYERS) for part in parts}
DOORS = {"marc.cli.bench", "marc.cli.world"}
LONGEST_FUNCTION = 60
HEAVY = {"torch", "transformers", "trl", "av", "cv2", "pandas", "open_clip", "scipy", "matplotlib", "lancedb"}


def part_graph() -> dict[str, set[str]]:
    """Which parts each part imports, itself left out; ``marc/__init__.py`` only hands names on and belongs to none."""
    graph: dict[str, set[str]] = {}
    for module, others in module_graph().items():
        if part := part_of(module):
            graph.setdefault(part, set()).update({other for name in others if (other := part_of(name))} - {part})
    return graph


def test_every_part_has_a_layer():
    assert set(part_graph()) == set(LAYER)


def test_no_part_imports_a_later_layer():
    wrong = [
        f"{module} imports {other}"
        for module, others in module_graph().items()
        for other in sorted(others)
        if part_of(module) and part_of(other) and LAYER[part_of(other)] > LAYER[part_of(module)]
    ]
    assert not wrong, wrong


def test_no_two_parts_import_each_other():
    list(graphlib.TopologicalSorter(part_graph()).static_order())


def test_no_files_import_each_other_in_a_circle():
    list(graphlib.TopologicalSorter(module_graph()).static_order())


def test_the_package_knows_nothing_of_what_uses_it_but_two_doors():
    through = {
        module
        for module, path in modules().items()
        for found in imports_of(path)
        if found.package in ("benchmarks", "experiments", "robustness")
    }
    assert through <= DOORS, sorted(through)


def test_compression_is_pure_mathematics():
    files = [path for module, path in modules().items() if part_of(module) == "compression"]
    roots = {found.package for path in files for found in imports_of(path)}
    assert not roots & {"transformers", "trl", "peft", "accelerate"}


def loaded_by(code: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter has loaded after some code."""
    code = f"import sys; {code}; print(*({HEAVY} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(result.stdout.split())


@pytest.mark.parametrize("code", ["import marc", "import marc.cli", "from marc.compression import CompressionConfig"])
def test_what_needs_nothing_heavy_loads_nothing_heavy(code: str):
    assert loaded_by(code) == set()


def test_the_mathematics_of_compression_needs_torch_alone():
    assert loaded_by("from marc.compression import compress, frame_similarity, plan_video") == {"torch"}


def test_importing_the_package_takes_no_time():
    code = "from time import perf_counter as now; begin = now(); import marc; print(now() - begin)"
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True).stdout)
        for _ in range(5)
    ]
    assert min(seconds) < 0.1, seconds


def test_functions_are_short():
    long = [
        f"{path.relative_to(ROOT)}: {node.name} has {lines} lines"
        for path in modules().values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := node.end_lineno - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert not long, long


def test_only_one_file_hashes_and_replaces_files():
    """What is written elsewhere may be found half; what is hashed elsewhere may be hashed otherwise."""
    others = {module: path for module, path in modules().items() if module != "marc.io"}
    found = [module for module, path in others.items() if any(one.module == "hashlib" for one in imports_of(path))]
    for module, path in others.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.replace", "os.rename", "os.fsync"):
                found.append(f"{module}: {ast.unparse(node)}")
    assert not found, found
