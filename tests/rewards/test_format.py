import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marc.rewards import format_reward
from marc.rewards.format import has_format

PIECES = ["<think>", "</think>", "<answer>", "</answer>", " ", "\n", "x", "<think>a</think>"]


def oracle(text):
    return re.fullmatch(r"<think>.*?</think>\s*<answer>.*?</answer>", text, re.DOTALL) is not None


@settings(max_examples=400)
@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join), st.sampled_from(["{}", "<think>{}</answer>"]))
def test_format_is_video_r1s_full_match(middle, frame):
    text = frame.format(middle)
    assert has_format(text) == oracle(text)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>a</think><answer>B</answer>", 1.0),
        ("<think>a\n</think>\n\n<answer>B</answer>", 1.0),
        ("<think></think><answer></answer>", 1.0),
        (" <think>a</think><answer>B</answer>", 0.0),
        ("<think>a</think><answer>B</answer>\n", 0.0),
        ("<think>a</think>so<answer>B</answer>", 0.0),
        ("<answer>B</answer>", 0.0),
        ("<think>a</think><answer>B", 0.0),
        ("<think></answer>", 0.0),
        ("", 0.0),
    ],
)
def test_examples(text, reward):
    assert format_reward([text], solution=["B"], problem_type=["multiple choice"]) == [reward]
    assert format_reward([[{"role": "assistant", "content": text}]]) == [reward]
