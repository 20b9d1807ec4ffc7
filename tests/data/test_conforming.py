"""Golds that no conforming answer can match are mended where that is safe, else refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marc.data.conforming import examine
from marc.data.rows import TrainingRow
from marc.grading import gold_answer, grade

OPTIONS = ("A. a cat", "B. a dog", "C. a cow")


def row(solution, problem_type="multiple choice", **values):
    return TrainingRow("1", values.pop("problem", "What?"), problem_type, solution, path="a.mp4", **values)


@pytest.mark.parametrize(
    ("gold", "letter"),
    [("b", "B"), ("A.", "A"), ("(A)", "A"), ("<answer>(c)</answer>", "C"), ("Ｂ", "B"), (" B ", "B")],
)
def test_a_letter_is_bared(gold, letter):
    found = examine(row(gold, options=OPTIONS))
    assert found.row is not None and gold_answer(found.row.solution) == letter
    assert found.mended == (() if gold == " B " else ("the letter alone",))
    assert grade(f"<answer>{letter}</answer>", found.row.solution, "multiple choice") == 1.0


@pytest.mark.parametrize("gold", ["D", "d.", "a dog", "A or B", "1", "AB"])
def test_what_is_no_options_letter_is_refused(gold):
    found = examine(row(gold, options=OPTIONS))
    assert (
        found.row is None
        and found.problem == f"the gold answer {gold!r} is no option's letter among the options A, B, C"
    )


@pytest.mark.parametrize(
    ("gold", "number"),
    [
        *(("12 cm", "12"), ("30°", "30"), ("5%", "5"), (r"\frac{3}{4}", "0.75"), ("$1,200", "1200"), ("about 7", "7")),
        *(("−3", "-3"), ("1/2", "0.5"), ("x = 4", "4"), (r"$\frac{-1}{4}$", "-0.25"), ("2.50 m", "2.5")),
    ],
)
def test_a_number_is_bared(gold, number):
    found = examine(row(gold, "numerical"))
    assert found.row is not None and gold_answer(found.row.solution) == number
    assert grade(f"<answer>{number}</answer>", found.row.solution, "numerical") == 1.0


@pytest.mark.parametrize("gold", ["3 of 4", "12 or 13 cm", "none", "x", "3 + 4", "1.2.3", "a very long " * 9 + "5"])
def test_what_is_no_single_number_is_refused(gold):
    found = examine(row(gold, "numerical"))
    assert found.row is None and "is no number" in found.problem


def test_what_the_reward_never_pays_is_refused():
    assert "pays nothing" in examine(row("0", "regression")).problem
    assert examine(row("0", "numerical")).row == row("0", "numerical")
    assert "no word that ROUGE knows" in examine(row("红色的汽车", "free-form")).problem
    assert examine(row("红色的汽车", "OCR")).row is not None
    assert all(examine(row(text, "free-form")).row is not None for text in ("the red car", "this"))


def test_placeholders_go_and_remarks_stay():
    found = examine(
        row("A", problem="<image>\nWhat is it? ", options=("A. a cat", "B. A cat"), process="<think>x</think>")
    )
    assert found.row is not None and found.row.problem == "What is it?"
    assert found.mended == ("no literal <image> or <video>",) and found.remarks == ("options that repeat",)
    assert examine(row("A", problem="<video>", options=OPTIONS)).row == row("A", problem="<video>", options=OPTIONS)
    assert examine(row("A", options=OPTIONS)).remarks == ("no process (supervised training needs one)",)


@given(
    st.text(max_size=20) | st.sampled_from(["b", "A.", "12 cm", "1/2", "0", "红", "a b"]),
    st.sampled_from(["multiple choice", "numerical", "regression", "free-form", "OCR"]),
)
def test_whatever_is_left_can_be_paid(gold, problem_type):
    try:
        made = row(gold, problem_type, options=OPTIONS)
    except ValueError:
        return
    if found := examine(made).row:
        answer = gold_answer(found.solution)
        assert grade(f"<answer>{answer}</answer>", found.solution, problem_type) > 0.6
        assert examine(found).row == found, "mending once is enough"
