"""The only place where prompts are rendered. Their strings are data, each with its source: ``protocols.json`` beside
this.

Two families. *Styles* ask the questions of any data set: ``video-r1`` (the evaluation behind MARC's published
numbers), ``video-r1-train`` (the same with the tags written as in training), ``short`` and ``plain``. *Benchmark
prompts* are those of a benchmark's own protocol, as lmms-eval renders them. Everything that differs by a character is
pinned in ``tests/golden/prompts.json``; after a deliberate change: ``MARC_UPDATE_GOLDEN=1 python -m pytest
tests/data/test_prompts.py``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from string import ascii_uppercase
from typing import Any

Message = dict[str, Any]

BARE_STYLE = "short"
"""The style that asks for the answer alone."""


def style_names() -> tuple[str, ...]:
    """The known values of ``style`` in `render_question`."""
    return tuple(_protocols()["styles"])


def check_style(style: str | None) -> None:
    """Refuses a style that there is not; None is a style of somebody else's choice.

    Raises:
        ValueError: Naming the known ones.
    """
    if style is not None and style not in style_names():
        raise ValueError(f"unknown prompt style {style!r}; choose one of {', '.join(style_names())}")


def render_question(
    question: str, *, problem_type: str = "free-form", options: Sequence[str] = (), style: str = "video-r1"
) -> str:
    """A question as the text that follows the video, in one of the general styles.

    Args:
        question: The row's ``problem``.
        problem_type: Its type; decides the closing sentence, and whether the options are listed (multiple choice).
        options: Options as written in the row, such as ``"A. red"``.
        style: One of `style_names`.

    Raises:
        ValueError: If the style is unknown, it has no closing sentence for the problem type, or the question holds
            half a character, as a terminal's or a file's wrong encoding leaves it.
    """
    check_style(style)
    strings = _protocols()["styles"][style]
    endings = strings["endings"]
    if endings and problem_type not in endings:
        raise ValueError(f"prompt style {style!r} knows no problem_type {problem_type!r}, only {', '.join(endings)}")
    if problem_type == "multiple choice" and (options or endings):
        question = _fill(strings["question_with_options"], question, options)
    text = _fill(strings["text"], question) + endings.get(problem_type, "")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the question {question[:80]!r} is not UTF-8: it holds half a character") from error
    return text


def check_asks_to_think(text: str) -> None:
    """Refuses a rendered question that does not ask for reasoning before the answer, as Video-R1's prompt does.

    Raises:
        ValueError: Naming the styles that do.
    """
    if "<think>" not in text:
        styles = [name for name, strings in _protocols()["styles"].items() if "<think>" in strings["text"]]
        raise ValueError(
            "think_below: this prompt does not ask to think, which is for where the bare answer is unsure; choose a "
            f"prompt style that asks to think ({', '.join(styles)}), or leave think_below out"
        )


def render_benchmark_question(benchmark: str, kind: str, question: str, options: Sequence[str] = ()) -> str:
    """A question in a benchmark's own (``official``) prompt.

    Args:
        benchmark: A benchmark's name in ``protocols.json``, such as ``"vsi"``.
        kind: Which of its prompts: its problem type, track or task.
        question: The question as annotated.
        options: Its options; lettered here if the benchmark's prompt letters them and they are not yet.

    Raises:
        ValueError: If the benchmark or the kind is unknown.
    """
    benchmarks = _protocols()["benchmarks"]
    if benchmark not in benchmarks:
        raise ValueError(f"benchmark {benchmark!r} has no prompt of its own; known: {', '.join(benchmarks)}")
    prompts = benchmarks[benchmark]["prompts"]
    if kind not in prompts:
        raise ValueError(f"{benchmark} has no prompt for {kind!r}; known: {', '.join(prompts)}")
    template = prompts[kind]
    return _fill(template["text"], question, _lettered(options, template.get("option", "{option}")))


def chat_messages(text: str, *, data_type: str = "video", path: str | None = None) -> list[Message]:
    """One user turn in Hugging Face chat format: the video or image first, then the text (Video-R1's order).

    Args:
        text: A rendered question.
        data_type: ``"video"``, ``"image"`` or ``"text"`` (no visual input).
        path: File of the video or image; None leaves a bare placeholder, as training rows need (paths live in a
        column).

    Raises:
        ValueError: If ``data_type`` is none of the three.
    """
    if data_type not in ("video", "image", "text"):
        raise ValueError(f"data_type must be 'video', 'image' or 'text', got {data_type!r}")
    messages = message_about([] if data_type == "text" else [(data_type, "")], text)
    if path is not None and data_type != "text":
        messages[0]["content"][0][data_type] = path
    return messages


def message_about(shown: Sequence[tuple[str, str]], text: str) -> list[Message]:
    """One user turn about several videos and images: their placeholders in order, then the text.

    Args:
        shown: ``"video"`` or ``"image"`` each, and a text that follows it, such as its subtitles; empty for none.
        text: A rendered question.
    """
    content: list[Message] = []
    for kind, said in shown:
        content += [{"type": kind}, {"type": "text", "text": said}] if said else [{"type": kind}]
    return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]


def render_subtitles(lines: Sequence[tuple[float, float, str]]) -> str:
    """Subtitles as the text that follows a video.

    Args:
        lines: Start and end in seconds, and what is said.

    Returns:
        Empty without lines.
    """
    strings = _protocols()["subtitles"]
    said = [strings["line"].format(start=start, end=end, text=text) for start, end, text in lines]
    return strings["text"].format(lines="\n".join(said)) if said else ""


def _fill(template: str, question: str, options: Sequence[str] = ()) -> str:
    lines = "".join(f"{option}\n" for option in options)
    return template.format(question=question, options="\n".join(options), option_lines=lines)


def _lettered(options: Sequence[str], form: str) -> list[str]:
    letters = ascii_uppercase[: len(options)]
    already = all(option.startswith(f"{letter}.") for option, letter in zip(options, letters, strict=True))
    if form == "{letter}. {option}" and already:
        return list(options)
    return [form.format(letter=letter, option=option) for letter, option in zip(letters, options, strict=True)]


@cache
def _protocols() -> dict[str, Any]:
    text = files("marc.data").joinpath("protocols.json").read_text(encoding="utf-8")
    protocols: dict[str, Any] = json.loads(text)
    return protocols
