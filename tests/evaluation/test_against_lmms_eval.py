"""Official prompts and scores against lmms-eval's own functions; runs only where lmms-eval is installed."""

import importlib
import itertools
import os
import random

import pytest

pytest.importorskip("lmms_eval", reason="lmms-eval is an extra of its own")
os.environ.setdefault("HF_HOME", "/nonexistent")

from marc.data.prompts import render_benchmark_question
from marc.evaluation import official
from marc.evaluation.official import score_official
from marc.evaluation.samples import Sample

OPTIONS = ["A. a red cup", "B. {braces} & more", "C. 3", "D. none"]
BARE = ["a red cup", "{braces} & more", "3", "none", "x"]
QUESTION = "What does {he} pick up?\nLook closely."


def task(name):
    return importlib.import_module(f"lmms_eval.tasks.{name}.utils")


def sample(gold, rule, problem_type="multiple choice", options=()):
    return Sample("t/0", "v.mp4", QUESTION, QUESTION, problem_type, gold, options=tuple(options), rule=rule)


def test_vsi_prompts():
    vsi = task("vsibench")
    for question_type in [*vsi.NA_QUESTION_TYPES, *vsi.MCA_QUESTION_TYPES]:
        doc = {"question": QUESTION, "question_type": question_type, "options": OPTIONS}
        read = official.read_vsi({**doc, "dataset": "d", "scene_name": "s", "ground_truth": "A"}, "test", "row")
        assert render_benchmark_question("vsi", read.kind, read.question, read.options) == vsi.vsibench_doc_to_text(
            doc
        )
    assert set(official.VSI_NUMERIC) == set(vsi.NA_QUESTION_TYPES)


def test_videomme_prompt():
    expected = task("videomme").videomme_doc_to_text(
        {"question": QUESTION, "options": OPTIONS},
        {"post_prompt": "\nAnswer with the option's letter from the given choices directly."},
    )
    assert render_benchmark_question("videomme", "multiple choice", QUESTION, OPTIONS) == expected


def test_mmvu_prompts():
    mmvu = task("mmvu")
    choices = dict(zip("ABCDE", BARE, strict=True))
    for form, kind in (("multiple-choice", "multiple choice"), ("open-ended", "open")):
        doc = {"question": QUESTION, "question_type": form, "choices": choices}
        assert render_benchmark_question("mmvu", kind, QUESTION, BARE) == mmvu.mmvu_doc_to_text(doc)
        assert render_benchmark_question("mmvu", f"{kind} cot", QUESTION, BARE) == mmvu.mmvu_doc_to_text_cot(doc)


def test_mvbench_prompt():
    expected = task("mvbench").mvbench_doc_to_text(
        {"question": QUESTION, "candidates": BARE}, {"post_prompt": "Only give the best option.\n"}
    )
    assert render_benchmark_question("mvbench", "multiple choice", QUESTION, BARE) == expected
    assert official.MVBENCH_FOLDERS == task("mvbench").DATA_LIST


def test_videommmu_prompts():
    module = task("videommmu")
    settings = {
        "pre_prompt": "You should watch and learn the video content. Then apply what you learned to ",
        "perception_and_comprehension_prompt": "\nPlease ignore the Quiz question in last frame of the video.",
        "mcq_prompt": "answer the following multi-choice question. The image for this question is at the end of the "
        "video.\n",
        "open_ended_prompt": "answer the following open-ended question. The image for this question is at the end of "
        "the video.\n",
    }
    for options in (OPTIONS, BARE):
        doc = {"question": QUESTION, "options": options, "question_type": "multiple-choice"}
        expected = module.videommmu_doc_to_text_perception_comprehension(doc, settings)
        assert render_benchmark_question("videommmu", "perception", QUESTION, options) == expected
        expected = module.videommmu_doc_to_text_adaptation(doc, settings)
        assert render_benchmark_question("videommmu", "adaptation", QUESTION, options) == expected
    doc = {"question": QUESTION, "options": [], "question_type": "open"}
    expected = module.videommmu_doc_to_text_adaptation(doc, settings)
    assert render_benchmark_question("videommmu", "adaptation open", QUESTION) == expected


def test_tempcompass_prompts():
    module = task("tempcompass")
    post = {
        "multi-choice": "\nPlease directly give the best option:",
        "yes_no": "\nPlease answer yes or no:",
        "caption_matching": "\nPlease directly give the best option:",
    }
    render = {
        "multi-choice": module.tempcompass_doc_to_text_multi_choice,
        "yes_no": module.tempcompass_doc_to_text_yes_no,
        "caption_matching": module.tempcompass_doc_to_text_caption_matching,
    }
    for kind, function in render.items():
        expected = function({"question": QUESTION}, {"pre_prompt": "", "post_prompt": post})
        assert render_benchmark_question("tempcompass", kind, QUESTION) == expected


PLAIN_CHOICES = [
    "{}",
    "{}.",
    "({})",
    "{}. a red cup",
    "{}) none",
    "The answer is {}.",
    "The correct answer is ({}).",
    "{}: it",
]


@pytest.mark.parametrize(("form", "said", "gold"), itertools.product(PLAIN_CHOICES, "ABCD", "AB"))
def test_plain_choices_are_scored_alike(form, said, gold):
    output = form.format(said)
    ours = score_official(output, sample(gold, "letter"))
    doc = {
        "domain": "",
        "sub_category": "",
        "task_type": "",
        "question_id": "",
        "duration": "",
        "videoID": "",
        "answer": gold,
    }
    theirs = task("videomme").videomme_process_results(doc, [output])["videomme_perception_score"]["score"]
    assert ours == theirs
    assert ours == task("mvbench").mcq_acc(gold, output) or "answer" in output  # it takes the article for an option
    vsi = task("vsibench")
    assert score_official(output, sample(gold, "first-token")) == vsi.exact_match(vsi.fuzzy_matching(output), gold)


def test_vsi_numbers_are_scored_alike():
    vsi, generator = task("vsibench"), random.Random(0)
    forms = ["{:.0f}", "{:.2f}", "There are {:.0f} chairs", "{:.1f} metres", "about {:.0f}."]
    spoken = [
        "three",
        "Twenty-one chairs",
        "three hundred and twenty-one",
        "one apple, room 2",
        "no idea",
        "",
        "seventeen",
    ]
    outputs = [generator.choice(forms).format(generator.uniform(0, 30)) for _ in range(1000)] + spoken
    for output in outputs:
        for gold in ("3", "4.5", "21", "1"):
            doc = {"prediction": "", "question_type": "object_counting", "ground_truth": gold}
            vsi.vsibench_process_results(doc, [output])
            ours = score_official(output, sample(gold, "mra", "regression"))
            assert ours == pytest.approx(doc["MRA:.5:.95:.05"]), (output, gold)


def test_yes_no_and_captions_are_scored_alike():
    module = task("tempcompass")
    for output in ("yes", "Yes, it is", "no", "No.", "YES", "maybe", ""):
        for gold in ("yes", "no"):
            assert score_official(output, sample(gold, "yes-no", "free-form")) == (module.extract_pred(output) == gold)
    options = ["Caption A: the cat runs.", "Caption B: the dog runs."]
    question = "Which caption matches?\n" + "\n".join(options)
    for output in ("Caption A", "B", "A.", "Caption B: the dog runs.", "the cat runs.", "a dog"):
        for gold in options:
            theirs = module.eval_rule(output, question, gold)
            ours = score_official(output, sample(gold, "caption", "free-form", options))
            assert ours == (0 if theirs == "fail" else theirs), (output, gold)


@pytest.mark.parametrize(
    "output", ["The total is 42.", "x = 3.14159", "The answer is quick sort", "42", "so 1,000 in total"]
)
@pytest.mark.parametrize("gold", ["42", "3.14", "quick sort", "1000", "7"])
def test_mmmu_open_answers_are_scored_alike(output, gold):
    module = task("videommmu")
    theirs = module.eval_open(gold, module.parse_open_response(output))
    assert score_official(output, sample(gold, "mmmu-open", "free-form")) == float(theirs)
