"""Questions as texts and tokens: what a model is asked in a prompt style, and what it should say then."""

from __future__ import annotations

from typing import Any

from marc.data.prompts import chat_messages, render_question
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


def prompt_ids(processor: Any, question: WorldQuestion, style: str) -> list[int]:
    """Token ids of the chat in which a video is shown, one placeholder, and the question asked."""
    chat = processor.apply_chat_template(chat_messages(prompt(question, style)), add_generation_prompt=True)
    ids: list[int] = processor.tokenizer(chat, add_special_tokens=False)["input_ids"]
    return ids


def completion_ids(processor: Any, question: WorldQuestion, style: str) -> list[int]:
    """Token ids of what should be said, the end of the turn included."""
    ids = processor.tokenizer(completion(question, style), add_special_tokens=False)["input_ids"]
    return [*ids, processor.tokenizer.eos_token_id]
