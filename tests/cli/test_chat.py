"""``marc chat`` as it is typed."""

import numpy as np
import pytest
from typer.testing import CliRunner

from marc import VideoAssistant
from marc.cli import app
from marc.model.tiny import build_tiny
from marc.types import GenerationOptions
from marc.video import write_video
from marc.world.export import write_sample


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    for part in build_tiny():
        part.save_pretrained(folder / "model")
    rng = np.random.default_rng(0)
    write_video(folder / "clip.mp4", rng.integers(0, 256, (40, 56, 56, 3), dtype=np.uint8), fps=10)
    return folder


def chat(folder, said, *arguments):
    options = ["--model", str(folder / "model"), "--device", "cpu", "--max-new-tokens", "3", "--no-memory"]
    return CliRunner().invoke(app, ["chat", str(folder / "clip.mp4"), *options, *arguments], input=said)


@pytest.mark.parametrize("end", ["", "\n", "\nWhat else?\n"])
def test_each_line_is_a_turn_until_an_empty_one_or_the_end(folder, end):
    result = chat(folder, "What is shown?\nAnd then?\n" + end)
    assert result.exit_code == 0, result.output
    assistant = VideoAssistant.from_pretrained(
        str(folder / "model"), memory=None, device="cpu", generation=GenerationOptions(max_new_tokens=3)
    )
    talk = assistant.chat(folder / "clip.mp4")
    expected = "".join(f"> {talk.ask(question).answer}\n" for question in ("What is shown?", "And then?"))
    assert result.stdout.rstrip() == f"{expected}>".rstrip()


def test_the_reasoning_is_shown_if_asked_for(folder):
    """The embedded model reasons about what is no choice."""
    write_sample(folder / "sample.mp4", seed=0, questions=1)
    arguments = ["chat", str(folder / "sample.mp4"), "--device", "cpu", "--no-memory"]
    question = "How many scenes are there?"
    shown, whole = (
        CliRunner().invoke(app, [*arguments, *more], input=f"{question}\n").stdout for more in ([], ["--thoughts"])
    )
    answer = VideoAssistant.from_pretrained(memory=None, device="cpu").ask(folder / "sample.mp4", question)
    assert "<think>" in answer.output and f"> {answer.output}\n" in whole
    assert f"> {answer.answer}\n" in shown and "think" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--start", "60"], "--start 60 is behind the end"),
        (["--k", "1"], "--no-memory leaves nothing for --k"),
        (["--prompt-style", "loud"], "unknown prompt style 'loud'"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_said(folder, arguments, message):
    result = chat(folder, "What?\n", *arguments)
    assert result.exit_code == 2 and message in result.stderr
