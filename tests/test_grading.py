"""The grader against independent restatements of Video-R1's rules, and against the known bugs of other scorers."""

import random
import re
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from marc.grading import (
    PROBLEM_TYPES,
    PROTOCOLS,
    extract_answer,
    gold_answer,
    grade,
    mean_relative_accuracy,
    read_choice,
    read_number,
    word_error_rate,
)

ROUGE = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)

# --- oracles: Video-R1's rules in the plainest form, with its regular expressions and torch --------------------------


def oracle_tags(text: str) -> str:
    match = re.search(r"<answer>\s*(.*?)\s*</answer>", text, re.DOTALL)
    return match.group(1).strip() if match else ""


def oracle_number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def oracle_wer(reference: str, hypothesis: str) -> float:
    r, h = reference.split(), hypothesis.split()
    distance = np.zeros((len(r) + 1, len(h) + 1))
    distance[:, 0], distance[0, :] = range(len(r) + 1), range(len(h) + 1)
    for i in range(1, len(r) + 1):
        for j in range(1, len(h) + 1):
            change = distance[i - 1, j - 1] + (r[i - 1] != h[j - 1])
            distance[i, j] = min(change, distance[i - 1, j] + 1, distance[i, j - 1] + 1)
    return float(distance[-1, -1]) / max(1, len(r))


def oracle_mra(predicted: float, target: float) -> float:
    p, t = torch.tensor(predicted, dtype=torch.float32), torch.tensor(target, dtype=torch.float32)
    error = torch.abs(p - t) / (torch.abs(t) + 1e-8)
    thresholds = torch.arange(0.5, 0.95 + 0.025, 0.05, dtype=torch.float32)
    return (error < 1 - thresholds).float().mean().item()


def oracle(output: str, solution: str, problem_type: str, protocol: str) -> float:
    answer, gold = oracle_tags(output), oracle_tags(solution)
    if protocol == "video-r1" and answer == "":
        answer = output
    if problem_type == "multiple choice":
        return 1.0 if answer.strip() == gold.strip() else 0.0
    if problem_type in ("numerical", "regression"):
        if problem_type == "numerical" and any(c in gold for c in ".,") != any(c in answer for c in ".,"):
            return 0.0
        predicted, target = oracle_number(answer), oracle_number(gold)
        if predicted is None or target is None:
            return 0.0
        if problem_type == "numerical":
            return 1.0 if round(predicted, 2) == round(target, 2) else 0.0
        if protocol == "video-r1":
            return oracle_mra(predicted, target)
        return 1 - min(1.0, max(0.0, (abs(predicted - target) + 1e-9) / (abs(target) + 1e-9)))
    if protocol == "video-r1":
        return 0.0
    if problem_type == "OCR":
        return max(0.0, min(1.0, 1 - oracle_wer(gold, answer)))
    scores = ROUGE.score(gold, answer)
    return (scores["rouge1"].fmeasure + scores["rouge2"].fmeasure + scores["rougeL"].fmeasure) / 3


finite = st.floats(-1e6, 1e6).map(lambda x: random.Random(x).choice([f"{x:.2f}", f"{x:.0f}", f"{x:,.1f}", repr(x)]))
vocabulary = ["the", "red", "car", "cars", "running", "runs", "a", "box", "<answer>", "3", "."]
words = st.lists(st.sampled_from(vocabulary), max_size=12).map(" ".join)
letters = st.sampled_from(["A", "B", "b", "B.", "(B)", " B ", "B: red", "", "A B", "\n", "3", "1,000", "1000", "0.5"])
answers = st.one_of(letters, finite, words, st.text(max_size=12)).filter(
    lambda a: oracle_number(a) is None or np.isfinite(oracle_number(a))
)
pieces = st.one_of(
    answers,
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "<answer> ", "</answer>\n", "<think>A</think>"]),
)
outputs = st.one_of(
    answers.map(lambda a: f"<think>so</think>\n<answer>{a}</answer>"),
    answers,
    st.lists(pieces, max_size=7).map("".join),
)


@settings(max_examples=700)
@given(outputs, answers, st.sampled_from(PROBLEM_TYPES), st.sampled_from(["reward", "video-r1"]))
def test_strict_scores_are_video_r1s(output, gold, problem_type, protocol):
    solution = f"<answer>{gold}</answer>"
    if not all(np.isfinite(n) for n in (oracle_number(extract_answer(output, protocol=protocol)),) if n is not None):
        return  # inf and nan: our documented deviation
    if not gold_answer(solution):
        assert grade(output, solution, problem_type, protocol=protocol) == 0.0, "another one: nothing is no answer"
        return
    assert grade(output, solution, problem_type, protocol=protocol) == pytest.approx(
        oracle(output, solution, problem_type, protocol), abs=1e-6
    )


@settings(max_examples=300)
@given(
    st.text() | outputs, st.text() | answers, st.sampled_from(PROBLEM_TYPES), st.sampled_from(PROTOCOLS), st.booleans()
)
def test_no_string_raises_and_scores_stay_in_the_unit_interval(output, solution, problem_type, protocol, strict):
    assert 0.0 <= grade(output, solution, problem_type, protocol=protocol, strict=strict) <= 1.0


@settings(max_examples=300)
@given(st.lists(pieces, max_size=8).map("".join))
def test_extraction_equals_the_regular_expression(output):
    assert extract_answer(output) == oracle_tags(output)


@settings(max_examples=300)
@given(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5))
def test_mean_relative_accuracy_is_video_r1s_in_float32(predicted, target):
    assert mean_relative_accuracy(predicted, target) == pytest.approx(oracle_mra(predicted, target), abs=1e-6)


def test_every_threshold_is_compared_as_in_float32():
    for target in (1.0, 2.0, 4.0, 10.0, 20.0, 100.0, 7.0, -4.0):
        for percent in range(201):
            predicted = target * percent / 100
            assert mean_relative_accuracy(predicted, target) == pytest.approx(oracle_mra(predicted, target), abs=1e-6)


# --- the known traps -------------------------------------------------------------------------------------------------

READABLE = [
    ("The video shows a pivot. Therefore, the final answer is: B", "B"),
    ("<think>The man picks up a cup.</think><answer>B</answer>", "B"),
    ("After thinking, C", "C"),
    ("Based on the video, a man runs. The answer is C", "C"),
    ("<think>Maybe A. Then B.</think>\n<answer>C</answer>", "C"),
    ("<think>First I thought <answer>A</answer> but no.</think><answer>D</answer>", "D"),
    ("reasoning from the prompt, A? </think><answer>D</answer>", "D"),
    ("<think>I forgot to close it. <answer>D</answer>", "D"),
    ("<answer><answer>B</answer></answer>", "B"),
    ("<answer>B. the red one</answer>", "B"),
    ("(B)", "B"),
    ("b", "B"),
    ("b)", "B"),
    ("B: the red one", "B"),
    ("**B**", "B"),
    ("Option B.", "B"),
    ("The answer is (B) because A is a man", "B"),
    ("Option A is wrong, so the correct option is B.", "B"),
    ("the answer is b.", "B"),
    ("The answer is A.", "A"),
    ("A. a man in a coat", "A"),
    (r"so \boxed{\text{C}}", "C"),
    ("B is the correct answer, not C", "B"),
    ("**B**\n\nbecause A is a man", "B"),
    ("B\n\nExplanation: the man in A is taller. So not A", "B"),
    ("B\n\nOn reflection the answer is C.", "C"),
    ("B - the dog", "B"),
    ("B – the dog", "B"),
    ("**B** — the dog", "B"),
    ("Ｂ", "B"),
    ("（Ｂ）", "B"),
    ("答案是B", "B"),
    ("正确答案：B。", "B"),
    ("因此选择C，因为A不对", "C"),
    (r"\boxed{\textbf{B}}", "B"),
    (r"so $\boxed{\mathrm{(B)}}$", "B"),
    ("<think>a</think><answer>B</answer></think>", "B"),
    ("<answer>B</answer> </think>", "B"),
    ("<think>x</think></think><answer>B</answer>\n</think></thinking>", "B"),
    ("<think>a</think><answer>B</answer", "B"),
    ("<think>I was cut off <answer>D</answ", "D"),
    ("A. a red car and a dog", "A"),
    ("B, because A is wrong", "B"),
    ("B, I think", "B"),
    ("The answer is A. B and C are wrong", "A"),
    ("The answer is B, C and D are wrong", "B"),
    ("The answer is B and C isn't correct", "B"),
    ("The answer is A, but B is close", "A"),
    ("The answer is A but I am unsure", "A"),
    ("The answer is (B), not (A) or (C)", "B"),
    ("Answer: B or so it seems", "B"),
    ("Between A and B, I choose B", "B"),
    ("It is A or B. No, so C", "C"),
    ("Not A, so B", "B"),
    ("The answer is not A but C", "C"),
    ("B\nB", "B"),
    ("A: B", "A"),
    ("(C) A.", "C"),
    ("D. A and B", "D"),
    ("The answer is D. A, B and C", "D"),
]


@pytest.mark.parametrize(("output", "letter"), READABLE)
@pytest.mark.parametrize(("protocol", "strict"), [("official", True), ("official", False), ("video-r1", False)])
def test_choices_are_read_as_a_person_reads_them(output, letter, protocol, strict):
    scores = {gold: grade(output, gold, "multiple choice", protocol=protocol, strict=strict) for gold in "ABCDE"}
    assert scores == {gold: float(gold == letter) for gold in "ABCDE"}


UNREADABLE = [
    "",
    "   ",
    "<answer></answer>",
    "A man walks a dog.",
    "<think>Probably A, let me check B",
    "<think>Maybe <answer>A</answer> or rather",
    "The answer is a red car",
    "I think it moves left",
    "A or B",
    "e.g. the left one",
    "(A) or (B)?",
    "The answer is not here",
    "a - b",
    "A, C",
    "选择题",
    "The answer is A or B.",
    "The answer is B or C",
    "Answer: A, B, C, D",
    "The correct answers are A and C",
    "Answer: (A) or (B)",
    "(a) or (b)",
    "A B C D",
    "A\nB\nC\nD",
    "A. a cat\nC. a dog",
    "(A) (B) (C)",
    "(A) (B)",
    "A; B",
    "A/B",
    "A. or B.",
    "**A** or **B**",
    "A or maybe B",
    "A and/or B",
    "Option A or option B",
    "either (A) or (B), I guess",
    "A or B is correct",
    "A, B and C are wrong",
    r"\boxed{A, B}",
    "答案是B或C",
    "The answer is not B.",
    "The answer isn't B",
    "It cannot be C",
    "Neither A nor B",
    "not (B), I think",
    "I think A is a good option",
    "so it must be A </think>",
    "<think>Maybe <answer>A</answer> or </",
]


@pytest.mark.parametrize("output", UNREADABLE)
@pytest.mark.parametrize(("protocol", "strict"), [("official", True), ("video-r1", False), ("reward", False)])
def test_an_answer_that_names_no_letter_is_never_right(output, protocol, strict):
    assert [grade(output, gold, "multiple choice", protocol=protocol, strict=strict) for gold in "ABCDEI"] == [0.0] * 6


@pytest.mark.parametrize(
    "answer",
    [
        *(
            "AC",
            "C, A",
            "A and C",
            "(A), (C)",
            "**A**, **C**.",
            "A、C",
            "The answers are A and C.",
            "The answer is: A, C",
        ),
        *("A. a cat\nC. a dog", "<think>A, B?</think><answer>A,C</answer>"),
    ],
)
@pytest.mark.parametrize("gold", ["AC", "A, C", "C and A", "<answer>A,C</answer>"])
def test_several_right_options_are_a_set(answer, gold):
    assert grade(answer, gold, "multiple choice", protocol="official") == 1.0
    assert grade(answer, "AB", "multiple choice", protocol="official") == 0.0
    assert grade(answer, "ABC", "multiple choice", protocol="video-r1", strict=False) == 0.0


@pytest.mark.parametrize("answer", ["A", "C", "ABC", "A, A", "A cat and a dog", "", "AC or AB"])
def test_another_set_is_wrong(answer):
    assert grade(answer, "AC", "multiple choice", protocol="official") == 0.0


@pytest.mark.parametrize("solution", ["", "  ", "<answer></answer>", "<answer> </answer>"])
@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_an_empty_gold_answer_never_pays(solution, problem_type):
    for output in ("", "<answer></answer>", "no tags", "<answer>B</answer>", "<answer>0</answer>"):
        for protocol in PROTOCOLS:
            for strict in (True, False):
                assert grade(output, solution, problem_type, protocol=protocol, strict=strict) == 0.0


@pytest.mark.parametrize("text", ["红色的汽车", "красная машина", "車が赤い", "سيارة حمراء"])
@pytest.mark.parametrize("problem_type", ["free-form", "OCR"])
def test_a_free_answer_in_other_letters_that_is_its_gold_is_right(text, problem_type):
    assert grade(text, text, problem_type, protocol="official") == 1.0
    assert grade(f"<answer>{text}</answer>", text, problem_type, strict=False) == 1.0
    assert grade("something else", text, problem_type, protocol="official") == 0.0


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Yes", 1.0),
        ("yes, the man is running.", 1.0),
        ("**Yes**, he does", 1.0),
        ("No.", 0.0),
        ("No, although yes would be nicer", 0.0),
        ("Not really", 0.0),
    ],
)
def test_a_sentence_that_begins_with_yes_or_no_says_it(answer, right):
    for gold in ("Yes", "yes."):
        assert grade(answer, gold, "free-form", protocol="official") == right
        assert grade(f"<answer>{answer}</answer>", gold, "free-form", strict=False) == right
    assert grade("<answer>Yes, the man is running.</answer>", "Yes", "free-form") < 1.0, "strict is Video-R1's"
    assert grade("Yes, he does", "Yes he does", "free-form", protocol="official") == 1.0


@pytest.mark.parametrize("answer", ["B.", "(B)", "b", "B: the red one"])
def test_strict_wants_the_letter_alone(answer):
    tagged = f"<think>x</think><answer>{answer}</answer>"
    for protocol in ("reward", "video-r1"):
        assert grade(tagged, "<answer>B</answer>", "multiple choice", protocol=protocol) == 0.0
        assert grade(tagged, "<answer>B</answer>", "multiple choice", protocol=protocol, strict=False) == 1.0


def test_without_tags_the_reward_sees_nothing_and_the_evaluation_everything():
    for strict in (True, False):
        assert grade("B", "B", "multiple choice", protocol="reward", strict=strict) == 0.0
        assert grade("B", "B", "multiple choice", protocol="video-r1", strict=strict) == 1.0
    assert extract_answer("B") == "" and extract_answer("B", protocol="video-r1") == "B"
    assert extract_answer("<answer> </answer>", protocol="video-r1") == "<answer> </answer>"


def test_an_empty_answer_is_wrong():
    for problem_type in PROBLEM_TYPES:
        for protocol in PROTOCOLS:
            for output in ("", "<answer></answer>", "<think>hm</think><answer>  </answer>"):
                for gold in ("B", "4", "the red car"):
                    assert grade(output, gold, problem_type, protocol=protocol) == 0.0
                    assert grade(output, gold, problem_type, protocol=protocol, strict=False) == 0.0


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("1,000", 1000), ("1000", 1000), ("-1,234,567.5 m", -1234567.5), ("three", 3), ("Twenty-one boxes", 21),
        ("three hundred and twenty-one", 321), ("two thousand and five", 2005), ("a hundred", 100), ("two three", 2),
        ("There are 3 boxes", 3), ("one apple, room 2", 1), (".5", 0.5), ("about 3.5 metres", 3.5), ("1e3", 1000),
        ("seventeen of 20", 17), ("+4", 4),
        ("−3", -3), ("- 3", -3), ("− 3", -3), ("minus 3", -3), ("negative 3", -3), ("Minus three", -3),
        ("–3 °C", -3), ("minus twenty-one", -21), ("it is - 4.5", -4.5), ("x = - 4", -4), ("room-3", 3),
        ("5 - 3", 5), ("10 minus 3", 10), ("seven minus three", 7), ("1/2", 0.5), ("-3/4", -0.75), ("1 1/2", 1.5),
        ("-1 1/2", -1.5), ("3 / 8 of it", 0.375), (r"\frac{3}{4}", 0.75), (r"$\dfrac{-1}{4}$", -0.25), ("1/0", 1),
        ("1/2/2020", 1), ("1 000", 1000), ("1\u202f000\u202f000 m", 1e6), ("12 34", 12), ("1{,}000", 1000),
        ("10^3", 1000), ("10^{3}", 1000), ("10³", 1000), ("2 x 10^3", 2000), ("2×10^{-3} m", 0.002),
        (r"1.5 \times 10^3", 1500), ("2^10", 1024), ("１２", 12), ("5%", 5), ("30°", 30),
        ("2½", 2.5), ("about -1½ m", -1.5), ("½", 0.5), ("-½", -0.5), ("2 1⁄2", 2.5), ("1,000½", 1000.5),
        ("Answer:\n- 3", 3), ("Answer:\n-3", -3), ("Answer:\n- -3", -3), ("Count:\n  - 3\n  - 4", 3),
        ("1 " + "1" * 5000 + "/2", 1), ("1 1/" + "2" * 5000, 1), ("hundred " * 300, 100), ("- 3 chairs", -3),
    ],
)  # fmt: skip
def test_numbers_are_read_from_text(answer, number):
    assert read_number(answer) == number


@pytest.mark.parametrize("answer", ["", "none", "nan", "inf", "-", ".", ",", "someone", "9" * 400, "1e308/0.0001"])
def test_what_is_no_finite_number_scores_zero(answer):
    assert read_number(answer) is None
    for problem_type in ("numerical", "regression"):
        for protocol in PROTOCOLS:
            assert grade(f"<answer>{answer}</answer>", "4", problem_type, protocol=protocol) == 0.0


def test_thousands_separators():
    for protocol in ("reward", "video-r1"):
        assert grade("<answer>1,000</answer>", "1000", "numerical", protocol=protocol) == 0.0
        assert grade("<answer>1,000</answer>", "1000", "numerical", protocol=protocol, strict=False) == 1.0
    assert grade("1,000", "1000", "numerical", protocol="official") == 1.0
    assert grade("1,000", "1000", "regression", protocol="official") == 1.0


def test_mra_is_strict_in_video_r1_and_inclusive_officially():
    assert grade("3", "4", "regression", protocol="video-r1") == 0.5
    assert grade("3", "4", "regression", protocol="official") == pytest.approx(0.6)
    assert grade("three", "4", "regression", protocol="official") == pytest.approx(0.6)
    assert grade("<answer>3</answer>", "4", "regression") == pytest.approx(0.75)
    assert mean_relative_accuracy(0, 0, inclusive=True) == 1 and mean_relative_accuracy(1, 0, inclusive=True) == 0


def test_word_error_rate_above_one_scores_zero():
    assert word_error_rate("a b", "c d e f g h") == 3.0
    assert grade("<answer>c d e f g h</answer>", "a b", "OCR") == 0.0
    assert grade("<answer>a x</answer>", "a b", "OCR") == 0.5


def test_a_letter_is_not_read_inside_a_word():
    assert read_choice("Cat") == "" and read_choice("ABC") == "" and read_choice("I'm sure") == ""


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="protocol 'vr1'"):
        grade("B", "B", "multiple choice", protocol="vr1")
    with pytest.raises(ValueError, match="problem_type 'mcq'"):
        grade("B", "B", "mcq")


REPEATED = (
    "<think>",
    "A ",
    "1,",
    "answer is ",
    "word ",
    "\\boxed{",
    "one ",
    "A or ",
    "option : ",
    "A, ",
    "答案是 ",
    "1 000 ",
    "A, B or C is wrong, ",
    "(a) or ",
    "not ",
    "hundred ",
    "</think>",
    "\n -",
    "</a",
)
HOSTILE = [
    "<answer>" + " " * 100_000,
    "(" * 100_000,
    "A" + "," * 100_000,
    *(20_000 * piece for piece in (*REPEATED, "minus ", "is - ", "\\frac{1}{", "1/")),
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_outputs_are_graded_in_linear_time(hostile):
    start = time.process_time()
    for protocol in PROTOCOLS:
        for problem_type in ("multiple choice", "numerical", "regression", "OCR"):
            grade(hostile, "B", problem_type, protocol=protocol, strict=False)
            grade(hostile, "B", problem_type, protocol=protocol)
    assert time.process_time() - start < 10
