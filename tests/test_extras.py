"""What happens where the packages of extras are not installed, which is simulated."""

import importlib
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from packages import OPTIONAL

from marc.extras import MissingExtraError, extra, require


def test_a_missing_package_is_an_error_of_one_line_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with (
        pytest.raises(
            MissingExtraError, match=r"^lancedb is not installed, .*: pip install '\.\[library\]' in marc's folder$"
        ),
        extra("library"),
    ):
        import lancedb.index  # noqa: F401


def test_a_package_that_is_there_but_broken_is_not_called_missing():
    with pytest.raises(ImportError, match="cannot import name") as caught, extra("library"):
        from json import nothing  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)


def test_what_will_be_needed_is_asked_for_before_the_work(monkeypatch):
    require("eval", "json", "sys")
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingExtraError, match=r"^scipy is not installed, .*: pip install '\.\[eval\]' in"):
        require("eval", "json", "scipy")


def test_of_vllm_it_is_said_that_it_needs_an_environment_of_its_own():
    with pytest.raises(MissingExtraError, match=r"an environment of its own.*bash inference_script/setup_vllm\.sh"):
        require("vllm", "a_package_that_is_not_there")


ASK_WITHOUT_EXTRAS = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[3].split(",")))
from marc.cli import main
sys.argv = ["marc", "ask", *sys.argv[1:3]]
main()
"""


def test_questions_are_answered_without_any_extra(tmp_path):
    from marc.world.export import write_sample

    questions = json.loads(write_sample(tmp_path / "sample.mp4").read_text())["questions"]
    asked = subprocess.run(
        [
            sys.executable,
            "-c",
            ASK_WITHOUT_EXTRAS,
            tmp_path / "sample.mp4",
            questions[0]["problem"],
            ",".join(OPTIONAL),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.splitlines()[0] in questions[0]["solution"]


@pytest.fixture
def hide(monkeypatch):
    """Has a package, and what of it is already imported, not be there."""

    def hide_package(name):
        for module in [name, *(module for module in sys.modules if module.startswith(f"{name}."))]:
            monkeypatch.setitem(sys.modules, module, None)

    return hide_package


def estimate_a_mean(_):
    from marc.evaluation.statistics import estimate

    estimate([0.0, 1.0], ["a", "b"])


def compare_runs(_):
    from marc.evaluation.statistics import compare_paired

    compare_paired([0.0], [1.0], ["a"])


def grade_a_transcript(_):
    from marc.grading import grade

    grade("<answer>one two</answer>", "<answer>one too</answer>", "OCR")


def grade_a_sentence(_):
    from marc import grading

    grading._rouge_scorer.cache_clear()
    grading.grade("<answer>one two</answer>", "<answer>one too</answer>", "free-form")


def plot_a_run(folder):
    from marc.evaluation.plots import plot_summary

    plot_summary(SimpleNamespace(lines=[], card={}), folder / "report.png")


def draw_a_storyboard(folder):
    from marc.inference.storyboard import check_storyboard

    check_storyboard(folder / "storyboard.png")


def read_a_table(folder):
    from marc.data.row_files import load_rows

    (folder / "rows.parquet").touch()
    load_rows(folder / "rows.parquet")


def begin_an_evaluation(folder):
    from marc.evaluation.evaluate import load_tasks
    from marc.evaluation.options import TaskOptions

    load_tasks(["world"], TaskOptions(data=folder), lambda: None)


def decode_with(name):
    def decode(folder):
        from marc.video import write_video

        write_video(folder / "clip.mp4", np.zeros((2, 28, 28, 3), np.uint8), fps=1.0)
        from marc.video.decoders import DECODERS
        from marc.video.decoding import open_video

        with open_video(str(folder / "clip.mp4")) as reader:
            DECODERS[name](reader, np.zeros(1), np.zeros((1, 28, 28, 3), np.uint8))

    return decode


def open_a_library(folder):
    from marc.memory.library import MemoryLibrary

    MemoryLibrary(folder)


def cut_with_scenedetect(_):
    from marc.memory.detectors.scenedetect import SceneDetectDetector

    SceneDetectDetector().start(SimpleNamespace(fps=25.0))


def import_training(_):
    importlib.reload(importlib.import_module("marc.training"))


def load_adapters(folder):
    from marc.model.loading import EMBEDDED_FOLDER, load_model

    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(EMBEDDED_FOLDER)}))
    load_model(folder)


def train_in_four_bits(_):
    from marc.training.run import _keep_gradients

    _keep_gradients(None)


@pytest.mark.parametrize(
    ("package", "name", "use"),
    [
        ("scipy", "eval", estimate_a_mean),
        ("scipy", "eval", compare_runs),
        ("scipy", "eval", begin_an_evaluation),
        ("nltk", "eval", grade_a_transcript),
        ("rouge_score", "eval", grade_a_sentence),
        ("matplotlib", "eval", plot_a_run),
        ("matplotlib", "plots", draw_a_storyboard),
        ("pyarrow", "eval", read_a_table),
        ("decord", "decord", decode_with("decord")),
        ("lancedb", "library", open_a_library),
        ("scenedetect", "segmenters", cut_with_scenedetect),
        ("trl", "train", import_training),
        ("peft", "train", load_adapters),
        ("bitsandbytes", "qlora", train_in_four_bits),
    ],
)
def test_what_needs_a_package_that_is_not_there_names_its_extra(tmp_path, hide, package, name, use):
    hide(package)
    with pytest.raises(MissingExtraError, match=rf"^{package} is not installed, .*'\.\[{name}\]' in"):
        use(tmp_path)
