"""Questions as texts: what a model is asked in a prompt style, and what it should say then."""

from __future__ import annotations

from marc.data.prompts import render_question
from marc.world.questions import WorldQuestion


def prompt(question: WorldQuestion, style: str) -> str:
    """The user's text, options included, in one of the styles of `marc.data.prompts`."""
    return render_question(question.text, problem_type=question.problem_type, options=question.options, style=style)


def completion(question: WorldQuestion, style: str) -> str:
    """The reasoning, where the style asks for it as Video-R1's do, and the answer."""
    return f"{reasoning(question)}{solution(question)}" if style.startswith("video-r1") else solution(question)


def reasoning(question: WorldQuestion) -> str:
    """The sentence that leads to the answer, in its tags."""
    return f"<think>{question.thought}</think>"


def solution(question: WorldQuestion) -> str:
    """The answer in its tags."""
    return f"<answer>{question.answer}</answer>"
