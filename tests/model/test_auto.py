"""transformers' Auto classes know our models after ``import marc``, in either order of imports, and at no cost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from marc.model.loading import EMBEDDED_FOLDER

ROOT = Path(__file__).resolve().parents[2]
ORDERS = {
    "marc first": "import marc\nimport transformers.models.auto.modeling_auto",
    "transformers first": "import transformers.models.auto.modeling_auto\nimport marc",
}
EACH_BY_ITSELF = """
import json, os, sys
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline

folder, bare = sys.argv[1:]
asked = {
    "AutoConfig": lambda: AutoConfig.from_pretrained(folder),
    "AutoModel": lambda: AutoModel.from_pretrained(folder),
    "AutoModelForImageTextToText": lambda: AutoModelForImageTextToText.from_pretrained(folder),
    "AutoProcessor": lambda: AutoProcessor.from_pretrained(folder),
    "AutoProcessor by the model's configuration": lambda: AutoProcessor.from_pretrained(bare),
    "pipeline": lambda: pipeline("image-text-to-text", model=folder, device="cpu").processor,
}
for name, ask in asked.items():
    sys.stdout.flush()
    child = os.fork()  # finding one class of ours registers all of them
    if child == 0:
        assert "marc.model.qwen2_5_vl.config" not in sys.modules, "not before it is asked for"
        print("\\n" + json.dumps([name, type(ask()).__name__]), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
"""


def run(code: str, *arguments: object) -> str:
    """Runs code in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """The embedded model's folder without what names its processor."""
    folder = tmp_path_factory.mktemp("bare")
    for file in EMBEDDED_FOLDER.iterdir():
        if file.suffix in (".json", ".jinja"):
            (folder / file.name).write_bytes(file.read_bytes())
    parts = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(parts["image_processor"]))
    (folder / "video_preprocessor_config.json").write_text(json.dumps(parts["video_processor"]))
    named = json.loads((folder / "tokenizer_config.json").read_text())
    named.pop("processor_class", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


@pytest.mark.parametrize("order", ORDERS)
def test_every_auto_class_finds_ours(order, bare):
    output = run(ORDERS[order] + EACH_BY_ITSELF, EMBEDDED_FOLDER, bare)
    found = dict(json.loads(line) for line in output.splitlines() if line.startswith("["))
    assert found == {
        "AutoConfig": "MarcConfig",
        "AutoModel": "MarcModel",
        "AutoModelForImageTextToText": "MarcForConditionalGeneration",
        "AutoProcessor": "MarcProcessor",
        "AutoProcessor by the model's configuration": "MarcProcessor",
        "pipeline": "MarcProcessor",
    }


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
