"""transformers' Auto classes know our models after ``import marc``, in either order of imports, and at no cost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from marc.model.family import families
from marc.model.tiny import build_tiny

ROOT = Path(__file__).resolve().parents[2]
ORDERS = {
    "marc first": "import marc\nimport transformers.models.auto.modeling_auto",
    "transformers first": "import transformers.models.auto.modeling_auto\nimport marc",
}
EACH_BY_ITSELF = """
import json, os, sys
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline

ways = {
    "AutoConfig": AutoConfig.from_pretrained,
    "AutoModel": AutoModel.from_pretrained,
    "AutoModelForImageTextToText": AutoModelForImageTextToText.from_pretrained,
    "AutoProcessor": AutoProcessor.from_pretrained,
    "AutoProcessor by the model's configuration": lambda folder: AutoProcessor.from_pretrained(folder + "/bare"),
    "pipeline": lambda folder: pipeline("image-text-to-text", model=folder, device="cpu").processor,
}
folders = sys.argv[1:]
alone = [([name], folders[:1]) for name in ways]
for names, asked in [*alone, (list(ways), folders)]:
    sys.stdout.flush()
    child = os.fork()  # finding one class of ours registers all of its family
    if child == 0:
        for folder in asked:
            config = f"marc.model.{os.path.basename(folder)}.config"
            assert config not in sys.modules, "not before it is asked for"
            found = {name: type(ways[name](folder)).__name__ for name in names}
            print("\\n" + json.dumps([os.path.basename(folder), found]), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, names
"""


def run(code: str, *arguments: object) -> str:
    """Runs code in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """A checkpoint of each family, and in it a folder without what names its processor."""
    parent = tmp_path_factory.mktemp("families")
    for family in families():
        folder = parent / family.name
        for part in build_tiny(family=family.name):
            part.save_pretrained(folder)
        (folder / "bare").mkdir()
        for file in [*folder.glob("*.json"), *folder.glob("*.jinja")]:
            (folder / "bare" / file.name).write_bytes(file.read_bytes())
        parts = json.loads((folder / "processor_config.json").read_text())
        (folder / "bare" / "processor_config.json").unlink()
        named = json.loads((folder / "tokenizer_config.json").read_text())
        named.pop("processor_class", None)
        for name, values in (
            ("preprocessor_config", parts["image_processor"]),
            ("video_preprocessor_config", parts["video_processor"]),
            ("tokenizer_config", named),
        ):
            (folder / "bare" / f"{name}.json").write_text(json.dumps(values))
    return [parent / family.name for family in families()]


@pytest.mark.parametrize("order", ORDERS)
def test_every_auto_class_finds_ours(order, folders):
    """Of one family each in a process of its own, of all of them one after another."""
    output = run(ORDERS[order] + EACH_BY_ITSELF, *folders)
    found = [json.loads(line) for line in output.splitlines() if line.startswith("[")]
    expected = {}
    for family in families():
        names = family.ours.names
        expected[family.name] = {
            "AutoConfig": names["config"],
            "AutoModel": names["model"],
            "AutoModelForImageTextToText": names["generator"],
            "AutoProcessor": names["processor"],
            "AutoProcessor by the model's configuration": names["processor"],
            "pipeline": names["processor"],
        }
    first = next(iter(expected))
    by_itself = [[first, {way: name}] for way, name in expected[first].items()]
    assert found == [*by_itself, *map(list, expected.items())]


def test_what_is_not_used_costs_nothing_and_types_of_transformers_are_found_as_before():
    code = """
import sys, time
start = time.process_time()
import marc
print(time.process_time() - start, "transformers" in sys.modules, "torch" in sys.modules)
from transformers import AutoConfig, CONFIG_MAPPING
import transformers.models.auto.configuration_auto as module
print(AutoConfig.for_model("bert").model_type, "marc" in CONFIG_MAPPING, type(module.__loader__).__module__)
"""
    seconds, *found = run(code).split()
    assert float(seconds) < 0.1
    assert found == ["False", "False", "bert", "True", "_frozen_importlib_external"]
