"""What is asked and what should be said: the style decides about reasoning, the grader finds the answer."""

import pytest

from marc.data.prompts import style_names
from marc.grading import extract_answer
from marc.world.questions import WorldQuestion
from marc.world.texts import completion, prompt

CHOICE = WorldQuestion(
    "colour", "What colour is it?", ("A. red", "B. blue"), "B", "multiple choice", "The plain scene shows it: blue", 0
)


@pytest.mark.parametrize("style", style_names())
def test_a_prompt_holds_question_and_options_and_its_completion_the_answer(style: str) -> None:
    asked = prompt(CHOICE, style)
    assert "What colour is it?" in asked and asked.index("A. red") < asked.index("B. blue")
    said = completion(CHOICE, style)
    assert extract_answer(said) == "B"
    assert said.startswith("<think>The plain scene") == style.startswith("video-r1")
