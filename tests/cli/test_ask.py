"""The command as it is typed."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny_models import FAMILIES, save_stock
from typer.testing import CliRunner

from marc.cli import app
from marc.compression.config import NEAR_DUPLICATES
from marc.model.tiny import build_tiny
from marc.video import write_video


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
