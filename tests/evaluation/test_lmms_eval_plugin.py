"""The lmms-eval plugin on a task made of local files; runs only where lmms-eval is installed."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

pytest.importorskip("lmms_eval", reason="lmms-eval is an extra of its own")

from marc.evaluation.lmms_eval_plugin import Marc, cut, generation_of, manifest
from marc.model.family import families
from marc.model.tiny import build_tiny
from marc.types import Answer, GenerationOptions

TASK = """
task: marc_local
dataset_path: json
dataset_kwargs:
  data_files:
    test: {rows}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: answer
generation_kwargs:
  max_new_tokens: 8
  temperature: 0
  do_sample: false
process_results: !function utils.process_results
metric_list:
  - metric: exact
    aggregation: mean
    higher_is_better: true
"""

FUNCTIONS = """
def doc_to_visual(doc):
    return [doc["video"]]

def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]

def process_results(doc, results):
    return {"exact": float(results[0].strip() == doc["answer"])}
"""


@pytest.fixture
def task_folder(tmp_path):
    from marc.video import write_video

    frames = np.random.default_rng(0).integers(0, 255, (16, 56, 56, 3), dtype=np.uint8)
    rows = []
    for index in range(4):
        video = tmp_path / f"{index}.mp4"
        write_video(video, frames, fps=8)
        rows.append({"video": str(video), "question": f"Question {index}?", "answer": str(index % 2)})
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "marc_local.yaml").write_text(TASK.format(rows=file))
    (folder / "utils.py").write_text(FUNCTIONS)
    return folder


class OddEngine:
    """Says 1 of every video."""

    def __init__(self):
        self.seen = []

    def answer(self, samples, generation):
        self.seen.append(([sample.prompt for sample in samples], generation))
        return [Answer("", "1") for _ in samples]


def evaluate(model, folder, **model_args):
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    manager = TaskManager("ERROR", include_path=str(folder), model_name="marc")
    results = simple_evaluate(
        model=model,
        model_args=",".join(f"{name}={value}" for name, value in model_args.items()),
        tasks=["marc_local"],
        task_manager=manager,
        batch_size=3,
        device="cpu",
    )
    return results["results"]["marc_local"]


def test_a_local_task_is_asked_in_batches_and_scored(task_folder, monkeypatch):
    from lmms_eval.models import MODEL_REGISTRY_V2

    engine = OddEngine()
    monkeypatch.setattr("marc.evaluation.lmms_eval_plugin.load_engine", lambda *_, **__: engine)
    MODEL_REGISTRY_V2.register_manifest(manifest(), overwrite=True)
    scores = evaluate("marc", task_folder)
    assert scores["exact,none"] == 0.5
    prompts = [prompt for batch, _ in engine.seen for prompt in batch]
    assert sorted(prompts) == [f"Question {index}?" for index in range(4)]
    assert [len(batch) for batch, _ in engine.seen] == [3, 1]
    assert engine.seen[0][1] == GenerationOptions(max_new_tokens=8)


@pytest.mark.parametrize("family", [family.name for family in families()])
def test_the_real_model_answers(family, task_folder, tmp_path):
    from lmms_eval.models import MODEL_REGISTRY_V2

    for part in build_tiny(family=family):
        part.save_pretrained(tmp_path / "model")
    MODEL_REGISTRY_V2.register_manifest(manifest(), overwrite=True)
    options = {"pretrained": tmp_path / "model", "method": "prompt:40+memory", "embedder": "tiny"}
    assert 0.0 <= evaluate("marc", task_folder, **options)["exact,none"] <= 1.0


def test_lmms_eval_finds_the_entry_point(tmp_path):
    """The package's metadata as `pyproject.toml` declares them, in a folder of their own."""
    folder = tmp_path / "marc_plugin-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: marc-plugin\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[lmms_eval.models]\nmarc = marc.evaluation.lmms_eval_plugin:manifest\n")
    program = textwrap.dedent("""
        from lmms_eval.models import get_model
        print(get_model("marc").__module__)
    """)
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert found.stdout.strip().endswith("marc.evaluation.lmms_eval_plugin"), found.stderr


def test_requests_that_are_no_single_video_are_named():
    model = Marc(engine=OddEngine())
    model.task_dict = {"images": {"test": [{}]}}
    content = [{"type": "image", "url": "a.png"}, {"type": "text", "text": "Q"}]

    class Request:
        args = ("", lambda doc: [{"role": "user", "content": content}], {}, 0, "images", "test")

    with pytest.raises(ValueError, match=r"images/test/0: .*has image"):
        model.generate_until([Request()])


def test_settings():
    assert generation_of({}) == GenerationOptions(1024)
    assert generation_of({"temperature": 0.7, "do_sample": False}).temperature == 0
    assert generation_of({"temperature": 0.7, "top_p": None, "max_new_tokens": 16}) == GenerationOptions(16, 0.7, 1.0)
    assert cut("a###b\n\nc", ["###"]) == "a" and cut("a\n\nb", ["\n\n"]) == "a\n\nb" and cut("a", None) == "a"
