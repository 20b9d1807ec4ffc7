"""The command as it is typed."""

import json
import signal
import subprocess
import sys
import time
from unittest import mock

import jsonschema
import numpy as np
import pytest
from PIL import Image
from record_schema import schema
from tiny_models import FAMILIES, save_stock
from typer.testing import CliRunner

from marc.cli import app
from marc.cli.setting import Setting
from marc.compression.config import NEAR_DUPLICATES
from marc.memory.options import RetrievalOptions
from marc.model.tiny import build_tiny
from marc.types import GenerationOptions, ModelOptions
from marc.video import write_video
from marc.video.options import FrameOptions, SubtitleOptions
from marc.video.times import clock, seconds_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ask")
    model, processor = build_tiny()
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    rng = np.random.default_rng(0)
    write_video(folder / "clip.mp4", rng.integers(0, 256, (40, 56, 56, 3), dtype=np.uint8), fps=10)
    return folder


def ask(folder, *arguments, video="clip.mp4"):
    options = ["--model", str(folder / "model"), "--device", "cpu", "--max-new-tokens", "3", "--no-memory"]
    return CliRunner().invoke(app, ["ask", str(folder / video), "What is shown?", *options, *arguments])


def test_the_help_names_the_true_default_of_duplicates():
    shown = CliRunner().invoke(app, ["ask", "--help"], env={"COLUMNS": "200"}).output
    (line,) = [line for line in shown[shown.index("--duplicates") :].splitlines() if "[default:" in line][:1]
    assert f"[default: {NEAR_DUPLICATES}]" in line


def test_json_is_one_object(folder):
    result = ask(folder, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert {
        "answer",
        "output",
        "frames",
        "visual_tokens_before",
        "visual_tokens_after",
        "seconds",
        "peak_memory_bytes",
        "events",
    } <= set(answer)
    assert answer["frames"] == 8
    assert answer["visual_tokens_after"] == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_checkpoints_of_every_family_answer(folder, family, tmp_path):
    save_stock(tmp_path, *build_tiny(family=family))
    result = ask(folder, "--json", "--model", str(tmp_path))
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["visual_tokens_before"], answer["visual_tokens_after"]) == (16, 4)


def test_the_report_says_what_it_cost(folder):
    result = ask(folder)
    assert "visual tokens    16 -> 4" in result.stdout
    assert "vision_tower" in result.stdout


def test_the_bare_answer_is_reported_where_it_is_asked_for_first(folder):
    style = ("--prompt-style", "video-r1")
    always = ask(folder, *style, "--think-below", "1.1")
    assert "bare answer      thought about at a probability of 0.0" in always.stdout, always.output
    assert "4 tokens generated" in always.stdout, "one, and three in thinking"
    never = json.loads(ask(folder, *style, "--think-below", "0", "--json").stdout)
    assert (never["has_thought"], never["generated_tokens"]) == (False, 3) and 0 < never["probability"] < 1
    once = json.loads(ask(folder, *style, "--json").stdout)
    assert (once["probability"], once["has_thought"], once["generated_tokens"]) == (None, None, 3)


def test_the_threshold_of_bare_answers_tells_batches_apart_and_those_from_before_it_go_on(monkeypatch):
    def identity(**generation):
        parts = (ModelOptions(), {}, FrameOptions(), SubtitleOptions(), None, RetrievalOptions())
        return Setting(*parts, GenerationOptions(**generation), None).identity

    hashed = []
    assert len({identity(), identity(think_below=0.5), identity(think_below=0.9)}) == 3
    monkeypatch.setattr("marc.io.sha256_json", lambda values: str(hashed.append(values)))
    identity()
    assert "seed" in hashed[0]["generation"] and "think_below" not in hashed[0]["generation"]


@pytest.mark.parametrize(
    ("arguments", "after", "frames"),
    [
        (["--no-compression"], 16, 8),
        (["--visual-tokens", "2"], 2, 8),
        (["--layout", "frames", "--target-frames", "2"], 8, 8),
        (["--frames", "2"], 4, 2),
        (["--fps", "1"], 4, 4),
        (["--tower-layer", "1", "--duplicates", "0.05"], 4, 8),
        (["--layout", "frames", "--tower-layer", "1:2"], 4, 8),
        (["--max-pixels", "196"], 1, 8),
        (["--max-frames", "2"], 4, 2),
        (["--budget", "full"], 16, 8),
        (["--budget", "frames:2"], 8, 8),
        (["--budget", "tokens:2"], 2, 8),
        (["--layout", "details", "--budget", "auto:3"], 3, 8),
        (["--budget", "events", "--merge", "weighted", "--tower-chunk", "none", "--window", "none"], 4, 8),
        (["--target-frames", "none"], 16, 8),
    ],
)
def test_options_reach_the_model(folder, arguments, after, frames):
    answer = json.loads(ask(folder, "--json", *arguments).stdout)
    assert (answer["visual_tokens_after"], answer["frames"]) == (after, frames)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["--frames", "2"], "--max-frames"),
        (["--timeout", "60"], "--video-timeout"),
        (["--attention", "sdpa"], "--attn-implementation"),
    ],
)
def test_old_spellings_work_and_warn(folder, old, new):
    result = ask(folder, "--json", *old)
    assert json.loads(result.stdout)["frames"] == (2 if old[0] == "--frames" else 8)
    assert f"marc ask: {old[0]} is now {new} and will go with the next release" in result.stderr


def test_storyboard(folder, tmp_path):
    assert ask(folder, "--storyboard", str(tmp_path / "out.png")).exit_code == 0
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tower-layer", "1:2,x"], "--tower-layer must be a whole number or a schedule"),
        (["--tower-layer", "1:2,3:5"], "--tower-layer must be a number of tower blocks >= 1, a schedule"),
        (["--tower-layer", "deep"], "--tower-layer must be a whole number or a schedule"),
        (["--fps", "0"], "--fps must be"),
        (["--frames", "0"], "--max-frames must be a whole number >= 2"),
        (["--visual-tokens", "0"], "--visual-tokens must be"),
        (["--layout", "grid"], "--layout must be one of"),
        (["--ratio", "1.5"], "--ratio must be a number in (0, 1]"),
        (["--budget", "frames:0"], "unknown budget 'frames:0'"),
        (["--budget", "events:2", "--layout", "frames"], "--budget events:2 leaves nothing for --layout"),
        (["--budget", "auto:2", "--layout", "frames"], "--budget auto:2 leaves nothing for --layout"),
        (["--budget", "full", "--no-compression"], "--no-compression leaves nothing for --budget"),
        (["--max-frames", "4", "--frames", "8"], "--frames is the old spelling of --max-frames"),
        (["--model", "no/such-model"], "cannot load the model 'no/such-model'"),
        (["--k", "1"], "--no-memory leaves nothing for --k"),
        (["--prompt-style", "loud"], "unknown prompt style 'loud'"),
        (["--decoder", "vlc"], "--decoder must be one of pyav, decord, torchcodec, got 'vlc'"),
        (["--no-compression", "--layout", "events", "--visual-tokens", "4"], "nothing for --layout, --visual-tokens"),
        (["--max-event-seconds", "8"], "--no-memory leaves nothing for --max-event-seconds"),
        (["--seed", "1"], "greedy decoding (--temperature 0) leaves nothing for --seed"),
        (["--storyboard", "/nowhere/out.png"], "the folder /nowhere does not exist"),
        (["--storyboard", "out.mp4"], "the ending must be one of"),
        (["--think-below", "sometimes"], "--think-below must be a number >= 0 or none, got 'sometimes'"),
        (["--think-below", "0.9"], "choose a prompt style that asks to think (video-r1, video-r1-train)"),
        (["--think-below", "0.9", "--prompt-style", "plain"], "think_below: this prompt does not ask"),
        (["--think-below", "0.9", "--static-cache"], "--think-below needs the probabilities of tokens"),
    ],
)
def test_a_wrong_option_is_named_on_one_line(folder, arguments, message):
    result = ask(folder, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_wrong_number_of_events_is_named(folder):
    result = CliRunner().invoke(app, ["ask", str(folder / "clip.mp4"), "What?", "--k", "many"])
    assert result.exit_code == 2
    assert "--k must be a whole number >= 1 or auto, got 'many'" in result.stderr


@pytest.mark.parametrize("content", [b"", b"not a video"])
def test_a_bad_file_is_named(folder, content):
    (folder / "bad.mp4").write_bytes(content)
    result = ask(folder, video="bad.mp4")
    assert result.exit_code == 2
    assert "bad.mp4" in result.stderr


def test_interrupted_it_leaves_nothing_behind(folder, tmp_path):
    command = [sys.executable, "-m", "marc.cli", "ask", "clip.mp4", "What?", "--model", "model", "--no-memory"]
    process = subprocess.Popen([*command, "--storyboard", str(tmp_path / "out.png")], cwd=folder)
    time.sleep(2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.iterdir())
    assert ask(folder, "--json").exit_code == 0


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """Folders of its own, for caches and libraries."""
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("MARC_LIBRARY", raising=False)
    return tmp_path


def marc(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_json_keeps_to_its_schema(folder):
    answer = json.loads(ask(folder, "--json", "--start", "0:01", "--end", "3.5").stdout)
    jsonschema.validate(answer, schema())
    assert (answer["question"], answer["model"]) == ("What is shown?", str(folder / "model"))
    (shown,) = answer["videos"]
    assert (shown["source"], shown["start"], shown["end"]) == (str(folder / "clip.mp4"), 1.0, 3.5)
    assert all(0.9 <= second < 3.5 for second in shown["frame_seconds"])
    assert len(shown["grid_groups"]) == len(shown["frame_seconds"]) // 2


def test_several_videos_and_pictures(folder, tmp_path):
    Image.new("RGB", (56, 56), "red").save(tmp_path / "red.png")
    options = ("--model", folder / "model", "--device", "cpu", "--max-new-tokens", 3, "--no-memory", "--json")
    result = marc("ask", folder / "clip.mp4", tmp_path / "red.png", "What is shown?", *options)
    assert result.exit_code == 0, result.output
    assert [shown["kind"] for shown in json.loads(result.stdout)["videos"]] == ["video", "image"]
    listed = tmp_path / "list.txt"
    listed.write_text(f"{folder / 'clip.mp4'}\n{tmp_path / 'red.png'}\n")
    again = marc("ask", f"@{listed}", "What is shown?", *options)
    assert json.loads(again.stdout)["output"] == json.loads(result.stdout)["output"]


def test_a_batch_is_answered_and_goes_on(folder, tmp_path):
    rows = [
        {"id": "a", "video": str(folder / "clip.mp4"), "question": "What is shown?"},
        {"id": "b", "video": str(folder / "gone.mp4"), "question": "What is shown?"},
        {
            "id": "c",
            "video": {"source": str(folder / "clip.mp4"), "start": 2},
            "question": "Which?",
            "options": ["A. x"],
        },
    ]
    file, out = tmp_path / "questions.jsonl", tmp_path / "questions.answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--model", folder / "model", "--device", "cpu", "--max-new-tokens", 3, "--no-memory")
    first = marc("ask", "--batch", file, *options)
    assert first.exit_code == 1 and "gone.mp4" in first.stderr
    assert f"{out}: 2 answered, 0 before, 1 failed" in first.stdout
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["id"], row["status"]) for row in answers] == [("a", "ok"), ("b", "failed"), ("c", "ok")]
    alone = json.loads(ask(folder, "--json").stdout)
    assert answers[0]["output"] == alone["output"]
    again = marc("ask", "--batch", file, *options)
    assert again.exit_code == 0 and "0 answered, 3 before, 0 failed" in again.stdout
    other = marc("ask", "--batch", file, *options, "--max-frames", 2)
    assert other.exit_code == 2 and "of other options (a): name another file" in other.stderr
    retried = marc("ask", "--batch", file, *options, "--retry-failed")
    assert retried.exit_code == 1 and "0 answered, 2 before, 1 failed" in retried.stdout


def test_a_new_long_video_is_answered_at_once_and_then_remembered(alone):
    rng = np.random.default_rng(0)
    write_video(alone / "clip.mp4", rng.integers(0, 256, (40, 56, 56, 3), dtype=np.uint8), fps=10)
    options = ("--segmenter", "uniform", "--max-new-tokens", 3, "--coarse-above", 2)
    asked = ("ask", alone / "clip.mp4", "What is shown?", *options)
    first = marc(*asked)
    assert first.exit_code == 0 and "\nmemory           coarse\n" in first.stdout
    assert "clip.mp4 for the next question; Ctrl-C leaves that to it" in first.stderr
    (memory,) = alone.glob("clip.mp4.*.marc")  # which ends what others wait for
    again = json.loads(marc(*asked, "--json").stdout)
    assert again["videos"][0]["memory"] == "full"
    memory.unlink()
    assert json.loads(marc(*asked, "--json").stdout)["videos"][0]["memory"] == "coarse"
    memory.unlink()
    assert json.loads(marc(*asked, "--json", "--wait").stdout)["videos"][0]["memory"] == "full"


def test_it_is_said_that_a_question_was_taken_to_be_about_all_of_the_video(alone):
    rng = np.random.default_rng(0)
    write_video(alone / "clip.mp4", rng.integers(0, 256, (40, 56, 56, 3), dtype=np.uint8), fps=10)
    asked = ("ask", alone / "clip.mp4", "How many scenes are there?", "--segmenter", "uniform", "--max-new-tokens", 3)
    told = marc(*asked)
    assert told.exit_code == 0 and "\nquestion         about all of the video\n" in told.stdout
    assert not list(alone.glob("*.marc")), "nothing had to be remembered for that"
    assert json.loads(marc(*asked, "--json").stdout)["videos"][0]["scope"] == "all"
    assert json.loads(marc(*asked, "--json", "--scope", "moments").stdout)["videos"][0]["scope"] == "moments"
    grown = json.loads(marc(*asked, "--json", "--budget", "auto:2").stdout)["videos"][0]
    assert (grown["scope"], grown["memory"]) == ("all", "full"), "the budget follows from the events"
    assert grown["visual_tokens_after"] == 2 * len(set(grown["grid_events"]))


def test_the_library_answers_with_citations(alone):
    """From remembering to the pictures of what was cited, with the embedded model and encoder."""
    for index, colour in enumerate(("red", "blue")):
        picture = np.asarray(Image.new("RGB", (56, 56), colour))
        write_video(alone / f"{index}.mp4", np.repeat(picture[None], 40, axis=0), fps=10)
    remembered = marc("remember", alone / "0.mp4", alone / "1.mp4", "--segmenter", "uniform")
    assert remembered.exit_code == 0, remembered.output
    pictures = alone / "pictures"
    options = ("--segmenter", "uniform", "--max-new-tokens", 3, "--pictures", pictures)
    for asked in (("--library", "Is it red?"), ("--library", alone / "XDG_DATA_HOME/marc/library", "Is it red?")):
        result = marc("ask", *asked, *options, "--json")
        assert result.exit_code == 0, result.output
        answer = json.loads(result.stdout)
        jsonschema.validate(answer, schema())
        assert answer["question"] == "Is it red?"
        assert {event["source"] for event in answer["events"]} == {str(alone / "0.mp4"), str(alone / "1.mp4")}
        assert sorted(map(str, pictures.iterdir())) == sorted(event["picture"] for event in answer["events"])
        assert all(event["frames"] >= 2 for event in answer["events"])
    text = marc("ask", "--library", "Is it red?", *options).stdout
    assert f"event retrieved  {alone / '0.mp4'} 0:00:00.0-0:00:04.0" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a video and a question: marc ask VIDEO"),
        (("clip.mp4",), "a video and a question are needed, got only 'clip.mp4'"),
        (("clip.mp4", " "), "the question is empty"),
        (("a.mp4", "What?", "--library", "shelf"), "--library asks about all remembered videos, not about a.mp4"),
        (("--library", " "), "the question is empty"),
        (("--library", "What?", "--no-memory"), "--no-memory leaves nothing for --library"),
        (("--library", "What?", "--start", "1"), "--library leaves nothing for --start"),
        (("--library", "What?", "--scope", "all"), "--library leaves nothing for --scope"),
        (("--watch", "camera", "What?", "--scope", "all"), "--watch leaves nothing for --scope"),
        (("--batch", "q.jsonl", "--background"), "--batch leaves nothing for --background"),
        (("--library", "What?", "--wait"), "--library leaves nothing for --wait"),
        (("clip.mp4", "What?", "--wait", "--background"), "--background is for answers that do not wait"),
        (("--batch", "q.jsonl", "--json"), "--batch leaves nothing for --json"),
        (("--batch", "q.jsonl", "clip.mp4", "What?"), "--batch has videos and questions of its own"),
        (("--batch", "gone.jsonl"), "gone.jsonl"),
        (("a.mp4", "What?", "--output", "x"), "a single question leaves nothing for --output"),
        (("a.mp4", "b.mp4", "What?", "--end", "3"), "--start and --end are for one video"),
        (("a.mp4", "What?", "--start", "noon"), "--start must be seconds or a time such as 1:02:03.5, got 'noon'"),
        (("a.mp4", "What?", "--start", "1:75"), "--start must be seconds or a time"),
        (("a.mp4", "What?", "--start", "5", "--end", "2"), "--end 2 must be behind --start 5"),
        (("clip.mp4", "What?", "--start", "60"), "clip.mp4: --start 60 is behind the end of this 4.00 s video"),
        (("clip.mp4", "What?", "--device", "gpu7"), "--device 'gpu7': torch knows no such device"),
        (("clip.mp4", "What?", "--embedder", "PE-Core-T-16-385"), "--embedder PE-Core-T-16-385: neither a folder"),
        (("clip.mp4", "What?", "--budget", "tokens:0"), "--budget: unknown budget 'tokens:0'"),
        (("--library", "gone", "What?"), "gone: there is no library here; use `marc remember` first"),
        (("clip.mp4", "What?", "--subtitles", "gone.srt"), "--subtitles gone.srt: there is no such file"),
        (
            ("clip.mp4", "What?", "--subtitles", "none", "--subtitles-in-prompt"),
            "--subtitles-in-prompt has nothing to",
        ),
        (("clip.mp4", "What?", "--pictures", "clip.mp4"), "--pictures clip.mp4: a file stands there; name a folder"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_a_model_is_loaded(folder, arguments, message, monkeypatch):
    monkeypatch.chdir(folder)
    with mock.patch("marc.model.loading.load_model", side_effect=AssertionError("loaded")):
        result = marc("ask", *arguments)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1:30", 90), ("0:01:30.5", 90.5), ("1:02:03", 3723), (" 7 ", 7), ("0", 0)]
)
def test_times_are_read_and_written_as_clocks(text, seconds):
    assert seconds_of(text, "--start") == seconds
    assert seconds_of(clock(seconds), "--start") == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:-2", "1:2:3:4", "nan", "inf", "1:60", "x:1", "1::2"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="--end must be seconds or a time"):
        seconds_of(text, "--end")
