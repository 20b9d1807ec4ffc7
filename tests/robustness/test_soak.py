"""What a soak takes for a drift, and for a wrong answer."""

from random import Random
from types import SimpleNamespace

import pytest

from robustness.soak import COUNTED, drift, judge, soak

STEADY = {"memory": 1000.0, "memory of children": 10.0, **dict.fromkeys(COUNTED, 5.0)}


def measured(**changes):
    """Thirty measurements, of which a change counts the number."""
    return [STEADY | {name: change(number) for name, change in changes.items()} for number in range(30)]


def test_a_drift_is_growth_from_the_first_to_the_last_quarter():
    assert drift([100, 100, 150, 110]) == pytest.approx(0.1)
    assert drift([100] * 8) == 0


def test_what_stays_is_no_problem():
    assert judge(measured()) == []
    assert judge(measured(memory=lambda number: 500 if number < 10 else 1000)) == [], "it grows in the warm-up"
    assert judge(measured(threads=lambda number: 7 if number < 10 else 5)) == []


@pytest.mark.parametrize("name", COUNTED)
def test_one_more_of_what_is_counted_is_a_problem(name):
    (problem,) = judge(measured(**{name: lambda number: 5 + (number > 20)}))
    assert problem == f"{name}: 6 after the warm-up, 5 in it"


def test_memory_that_grows_is_a_problem():
    assert judge(measured(memory=lambda number: 1000 + 2 * number)) != []
    (problem,) = judge(measured(**{"memory of children": lambda number: 10 + number / 10}))
    assert problem.startswith("memory of children grew by 1")


def test_too_few_questions_tell_nothing():
    assert judge(measured()[:5]) == ["too few questions to tell a drift: ask more of them"]


class Assistant:
    """Answers the same until it is tired."""

    def __init__(self, tired=10_000):
        self.asked, self.tired = 0, tired

    def ask(self, video, question):
        self.asked += 1
        if video == "bad":
            raise ValueError("bad: cannot be read")
        return SimpleNamespace(answer="yes" if self.asked < self.tired else "no")


TASKS = [("video", "good", "What?"), ("bad file", "bad", "What?")]


def test_answers_that_stay_are_right(tmp_path):
    problems, figures = soak(Assistant(), TASKS, 100, Random(0), tmp_path)
    assert not [problem for problem in problems if problem.startswith("question")]
    assert figures["questions"] == 100 and figures["temporary files"] == 0


@pytest.mark.parametrize(
    ("assistant", "tasks", "message"),
    [
        (Assistant(tired=50), TASKS, "'no', but 'yes' before"),
        (Assistant(), [("bad file", "good", "What?")], "is answered with 'yes'"),
        (Assistant(), [("video", "bad", "What?")], "ValueError: bad: cannot be read"),
    ],
)
def test_an_answer_that_changes_and_an_error_that_is_none_or_another_are_found(tmp_path, assistant, tasks, message):
    problems, _ = soak(assistant, [*tasks, *TASKS], 100, Random(0), tmp_path)
    assert any(message in problem for problem in problems)
