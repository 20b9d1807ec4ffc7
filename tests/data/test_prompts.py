"""Prompts, character by character: written out by hand where they come from Video-R1, pinned by a golden file
elsewhere.
"""

import json
import os
from pathlib import Path

import pytest

from marc.data.prompts import chat_messages, render_benchmark_question, render_question, style_names

GOLDEN = Path(__file__).parents[1] / "golden" / "prompts.json"
THINK = (
    "\nPlease think about this question as if you were a human pondering deeply. Engage in an internal dialogue using "
    "expressions such as 'let me think', 'wait', 'Hmm', 'oh, I see', 'let's break it down', etc, or other natural "
    "language thought expressions It's encouraged to include self-reflection or verification in the reasoning "
    "process. Provide your detailed reasoning between the <think> and </think> tags, and then give your final answer "
    "between the <answer> and </answer> tags."
)
LETTER = " Please provide only the single option letter (e.g., A, B, C, D, etc.) within the <answer> </answer> tags."
NUMBER = " Please provide the numerical value (e.g., 42 or 3.14) within the <answer> </answer> tags."
OCR = (
    " Please transcribe text from the image/video clearly and provide your text answer within the "
    "<answer> </answer> tags."
)
TEXT = " Please provide your text answer within the <answer> </answer> tags."


def test_video_r1_multiple_choice_to_the_character():
    prompt = render_question("What moves?", problem_type="multiple choice", options=["A. a cat", "B. {dog}"])
    assert prompt == "What moves?Options:\nA. a cat\nB. {dog}\n" + THINK + LETTER


@pytest.mark.parametrize(
    ("problem_type", "ending"), [("numerical", NUMBER), ("regression", NUMBER), ("OCR", OCR), ("free-form", TEXT)]
)
def test_video_r1_other_types_ignore_options(problem_type, ending):
    prompt = render_question("How many {x}?", problem_type=problem_type, options=["A. 1"])
    assert prompt == "How many {x}?" + THINK + ending


def test_training_differs_from_evaluation_by_the_tags_only():
    evaluation = render_question("Q", problem_type="OCR")
    training = render_question("Q", problem_type="OCR", style="video-r1-train")
    assert training == evaluation.replace("<think> and </think>", "<think> </think>").replace(
        "<answer> and </answer>", "<answer> </answer>"
    )


def test_multiple_choice_without_options_keeps_the_heading_as_video_r1_does():
    assert render_question("Q", problem_type="multiple choice").startswith("QOptions:\n\nPlease think")
    assert render_question("Q", problem_type="multiple choice", style="plain") == "Q"


def test_the_video_comes_before_the_text():
    assert chat_messages("Q", path="a.mp4") == [
        {"role": "user", "content": [{"type": "video", "video": "a.mp4"}, {"type": "text", "text": "Q"}]}
    ]
    assert chat_messages("Q", data_type="image") == [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Q"}]}
    ]
    assert chat_messages("Q", data_type="text") == [{"role": "user", "content": [{"type": "text", "text": "Q"}]}]


def test_every_prompt_is_as_in_the_golden_file():
    rendered = dict(_all_prompts())
    if os.environ.get("MARC_UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(rendered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert rendered == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_options_that_carry_their_letter_keep_it():
    lettered = render_benchmark_question("videommmu", "perception", "Q", ["A. x", "B. y"])
    assert lettered == render_benchmark_question("videommmu", "perception", "Q", ["x", "y"])


def test_unknown_names_are_refused_by_name():
    with pytest.raises(ValueError, match=r"style 'vr1'.*video-r1"):
        render_question("Q", style="vr1")
    with pytest.raises(ValueError, match="problem_type 'mcq'"):
        render_question("Q", problem_type="mcq")
    with pytest.raises(ValueError, match="'egoschema' has no prompt"):
        render_benchmark_question("egoschema", "multiple choice", "Q")
    with pytest.raises(ValueError, match="vsi has no prompt for 'open'"):
        render_benchmark_question("vsi", "open", "Q")
    with pytest.raises(ValueError, match="data_type"):
        chat_messages("Q", data_type="audio")


def _all_prompts():
    for style in style_names():
        for problem_type in ("multiple choice", "numerical", "OCR", "free-form", "regression"):
            options = ["A. red", "B. blue"] if problem_type == "multiple choice" else []
            prompt = render_question("Q?", problem_type=problem_type, options=options, style=style)
            yield f"{style}/{problem_type}", prompt
    kinds = {
        "vsi": ["multiple choice", "regression"],
        "videommmu": ["perception", "comprehension", "adaptation", "adaptation open"],
        "mmvu": ["multiple choice", "open", "multiple choice cot", "open cot"],
        "mvbench": ["multiple choice"],
        "tempcompass": ["multi-choice", "yes_no", "caption_matching"],
        "videomme": ["multiple choice"],
    }
    for benchmark, names in kinds.items():
        for kind in names:
            yield f"{benchmark}/{kind}", render_benchmark_question(benchmark, kind, "Q?", ["red", "blue"])


@pytest.mark.parametrize("question", ["caf\udce9?", "half \ud83d"])
def test_a_question_that_no_tokenizer_reads_is_refused(question):
    with pytest.raises(ValueError, match="is not UTF-8"):
        render_question(question)
    with pytest.raises(ValueError, match="is not UTF-8"):
        render_question("Which?", problem_type="multiple choice", options=["A. x", question])
