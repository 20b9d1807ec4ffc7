"""A few clients against a real server that is killed in the middle, and what the campaign takes for a fault."""

import json
from random import Random

import pytest

from robustness.visitors import (
    COUNTED,
    Crowd,
    Served,
    Visit,
    body_of,
    in_blocks,
    judge,
    killed_in_the_middle,
    said_in,
    visited,
)

KINDS = 2
"""A seed that has all kinds of requests among the first."""
STEADY = {"memory": 1000.0, **dict.fromkeys(COUNTED, 5.0)}


def test_a_few_clients_are_answered_as_a_lone_one_through_a_kill():
    """As the campaign does, with one video, in seconds."""
    with visited(videos=1, questions=2, streamed=0.2) as (crowd, served):
        measured = in_blocks(crowd, served, 24, clients=4, random=Random(KINDS))
        problems = killed_in_the_middle(crowd, served, clients=4, random=Random(2), requests=12)
        assert problems + crowd.seen.problems == []
        assert sum(crowd.seen.tried.values()) == 36 and set(crowd.seen.tried) == {"good", "bad", "gone", "streamed"}
        assert measured[0]["unfinished files"] == 0


def test_what_stays_is_no_fault_and_what_grows_is():
    assert judge([STEADY] * 12, warm=4) == []
    growing = [STEADY | {"memory": 1000.0 + 10 * number} for number in range(12)]
    assert judge(growing, warm=4) == ["resident memory grew by 5.74%"]
    assert judge([STEADY] * 3, warm=1) == ["too few requests to tell a drift: ask for more of them"]


@pytest.mark.parametrize("name", COUNTED)
def test_one_more_of_what_is_counted_is_a_fault(name):
    measured = [STEADY | {name: 5.0 + (number == 11)} for number in range(12)]
    assert judge(measured, warm=4) == [f"{name}: 6 after the warm-up, 5 in it"]


class Scripted(Served):
    """Answers what it is told to."""

    def __init__(self, status, reply):
        self.reply = status, reply

    def ask(self, method, path, body, kind=""):
        return self.reply


def whole(text, tokens=4):
    return json.dumps({"choices": [{"message": {"content": text}}], "marc": {"visual_tokens_after": tokens}})


@pytest.mark.parametrize(
    ("kind", "status", "reply", "problem"),
    [
        ("good", 200, whole("yes"), None),
        ("good", 200, whole("no"), "('no', 4), but a lone client got ('yes', 4)"),
        ("good", 200, whole("yes", tokens=64), "('yes', 64), but a lone client got ('yes', 4)"),
        ("good", 500, "broken", "500: broken"),
        ("bad", 400, '{"error": {"message": "no video"}}', None),
        ("bad", 200, whole("yes"), "200: "),
        ("bad", 500, "broken", "500: broken"),
    ],
)
def test_a_wrong_answer_and_a_wrong_error_are_found(kind, status, reply, problem):
    crowd = object.__new__(Crowd)
    crowd._served, crowd._expected = Scripted(status, reply), {"task": ("yes", 4)}
    found = crowd._problem_of(Visit("task", body_of("a.mp4", "What?"), kind))
    assert found is None if problem is None else found.startswith(problem)


def test_what_came_in_pieces_is_put_together():
    deltas = [{"role": "assistant", "content": ""}, {"content": "ye"}, {"content": "s"}, {}]
    sent = [
        *({"choices": [{"delta": delta}]} for delta in deltas),
        {"choices": [], "marc": {"visual_tokens_after": 4}},
    ]
    events = "".join(f"data: {json.dumps(each)}\n\n" for each in sent)
    assert said_in(events + "data: [DONE]\n\n") == said_in(whole("yes")) == ("yes", 4)
