import pytest

from marc.rewards import accuracy_reward


def chat(text):
    return [{"role": "assistant", "content": text}]


def test_each_row_is_graded_by_its_own_type():
    rewards = accuracy_reward(
        ["<answer>B</answer>", "<answer>3</answer>", "<answer>a x</answer>", "<answer>42.00</answer>"],
        ["<answer>B</answer>", "4", "a b", "42.001"],
        ["multiple choice", "regression", "OCR", "numerical"],
        prompts=["p"] * 4,
        completion_ids=[[1]] * 4,
    )
    assert rewards == pytest.approx([1.0, 0.75, 0.5, 1.0])


def test_chats_and_typed_parts_are_read():
    parts = [
        {"type": "text", "text": "<answer>"},
        {"type": "video", "text": None},
        {"type": "text", "text": "B</answer>"},
    ]
    assert accuracy_reward([chat("<answer>B</answer>"), chat(parts)], ["B", "B"], ["multiple choice"] * 2) == [
        1.0,
        1.0,
    ]


def test_strict_and_lenient():
    arguments = (["<answer>(b)</answer>"], ["B"], ["multiple choice"])
    assert accuracy_reward(*arguments) == [0.0]
    assert accuracy_reward(*arguments, strict=False) == [1.0]


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="shorter"):
        accuracy_reward(["a", "b"], ["a"], ["OCR", "OCR"])
