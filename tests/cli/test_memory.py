"""The commands as they are typed, with a real dual encoder of random weights."""

import json
import shutil

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from marc.cli import app
from marc.memory.embedder import save_dual_encoder
from marc.video import write_video

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PREPROCESS = {
    "size": (16, 16),
    "mean": (0.5,) * 3,
    "std": (0.5,) * 3,
    "interpolation": "bilinear",
    "resize_mode": "squash",
}


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("MARC_LIBRARY", raising=False)


@pytest.fixture
def embedder(tmp_path):
    save_encoder(tmp_path / "encoder")
    return str(tmp_path / "encoder")


def save_encoder(folder):
    torch.manual_seed(0)
    model = open_clip.CLIP(**CONFIG)
    open_clip.set_model_preprocess_cfg(model, PREPROCESS)
    save_dual_encoder(folder, model, CONFIG)


def marc(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_remember_recall_forget(tmp_path, embedder):
    rng = np.random.default_rng(0)
    videos = [tmp_path / "one.mp4", tmp_path / "two.mp4"]
    for video in videos:
        write_video(video, rng.integers(0, 256, (30, 48, 64, 3), dtype=np.uint8), fps=5)
    (tmp_path / "letter.mp4").write_text("Dear reader")
    remember = ("remember", *videos, tmp_path / "letter.mp4", "--embedder", embedder, "--segmenter", "uniform")

    first = marc(*remember, "--max-seconds", 4)
    assert first.exit_code == 1, first.output
    assert "marc remember: --max-seconds is now --max-event-seconds" in first.stderr
    again = marc(*remember, "--max-event-seconds", 4)
    assert again.output.count("known already") == 2 and "is now" not in again.output
    assert "1 of 3 videos failed" in first.output
    assert "letter.mp4" in first.output
    assert len(list(tmp_path.glob("*.marc"))) == 2

    recalled = marc("recall", "a red ball", "--embedder", embedder, "-k", 3)
    assert recalled.exit_code == 0, recalled.output
    lines = recalled.stdout.splitlines()
    assert len(lines) == 3
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert all(line.endswith(("one.mp4", "two.mp4")) for line in lines)
    assert "0:00:0" in lines[0]

    as_json = json.loads(marc("recall", "a red ball", "--embedder", embedder, "-k", 3, "--json").stdout)
    assert (as_json["schema"], as_json["question"]) == ("marc.recall.v1", "a red ball")
    assert [f"{event['score']:6.3f}" for event in as_json["events"]] == [line[:6] for line in lines]
    assert {event["source"] for event in as_json["events"]} <= {str(video) for video in videos}

    forgotten = marc("forget", videos[0])
    assert "one.mp4: 2 events forgotten" in forgotten.stdout
    left = marc("recall", "a red ball", "--embedder", embedder, "-k", 9).stdout
    assert "one.mp4" not in left
    assert "two.mp4" in left


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder with an encoder, a library, and two videos of five events in it, the second with tags."""
    folder, rng = tmp_path_factory.mktemp("shelf"), np.random.default_rng(0)
    save_encoder(folder / "encoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for name, tags in (("one.mp4", ()), ("two.mp4", ("--tag", "walk", "--tag", "rainy day"))):
            write_video(folder / name, rng.integers(0, 256, (60, 48, 64, 3), dtype=np.uint8), fps=5)
            assert marc("remember", folder / name, *remembering(folder), *tags).exit_code == 0
    return folder


def remembering(folder):
    cut = ("--segmenter", "uniform", "--max-event-seconds", 4)
    return ("--embedder", folder / "encoder", "--library", folder / "library", *cut)


def recalled(shelf, *options, library="library"):
    where = ("--embedder", shelf / "encoder", "--library", shelf / library)
    return marc("recall", "a red ball", *where, *options)


def test_recall_looks_where_it_is_told(shelf):
    one, two = str(shelf / "one.mp4"), str(shelf / "two.mp4")

    def found(*options):
        result = recalled(shelf, "-k", 20, *options)
        assert result.exit_code == 0, result.output
        return [line.split(maxsplit=2)[1:] for line in result.stdout.splitlines()]

    assert len(found()) == 10
    for options in (("--tag", "walk"), ("--tag", "walk", "--tag", "rainy day"), ("--video", two)):
        assert [source for _, source in found(*options)] == [two] * 5
    assert found("--tag", "sunny") == []
    assert "nothing was found; no event is in the videos" in recalled(shelf, "--tag", "sunny").stderr
    (shelf / "old.png").write_bytes(b"an older sheet")
    for options, words in ((("--sheet", shelf / "old.png"), "nothing was found that"), (("--page", 2), "no page 2")):
        refused = recalled(shelf, "--tag", "sunny", *options)
        assert refused.exit_code == 2 and words in refused.stderr
    assert {source for _, source in found("--video", shelf)} == {one, two}
    clocks = {times for times, _ in found("--after", "0:03", "--before", 6, "--video", one)}
    assert clocks == {"0:00:02.5-0:00:05.0", "0:00:05.0-0:00:07.5"}


def test_tags_are_left_alone_where_none_are_given(shelf):
    assert marc("remember", shelf / "two.mp4", *remembering(shelf)).exit_code == 0
    assert len(recalled(shelf, "--tag", "walk", "-k", 20).stdout.splitlines()) == 5


def test_recall_by_keyframes_shows_their_scores(shelf):
    mean, best = (
        [line.split() for line in recalled(shelf, "-k", 10, *options).stdout.splitlines()]
        for options in ((), ("--by-frames",))
    )
    scores = [float(line[0]) for line in best]
    assert scores == sorted(scores, reverse=True)
    assert sorted(line[1:] for line in mean) == sorted(line[1:] for line in best)
    before = {tuple(line[1:]): float(line[0]) for line in mean}
    assert all(float(line[0]) >= before[tuple(line[1:])] - 1e-3 for line in best)


def test_pages_of_recall(shelf):
    shutil.copytree(shelf / "library", shelf / "copy")
    whole = recalled(shelf, "-k", 10, library="copy").stdout.splitlines()
    first = json.loads(recalled(shelf, "-k", 4, "--json", library="copy").stdout)
    assert (first["page"], first["next_page"][:2]) == (1, "2@")
    assert marc("forget", shelf / "one.mp4", "--library", shelf / "copy").exit_code == 0
    second = recalled(shelf, "-k", 4, "--page", first["next_page"], library="copy")
    assert second.stdout.splitlines() == whole[4:8]
    (hint,) = [line for line in second.stderr.splitlines() if "there are more: --page 3@" in line]
    third = recalled(shelf, "-k", 4, "--page", hint.split()[-1], "--json", library="copy")
    last = json.loads(third.stdout)
    assert [f"{event['score']:6.3f}" for event in last["events"]] == [line[:6] for line in whole[8:]]
    assert last["next_page"] is None
    assert len(recalled(shelf, "-k", 10, library="copy").stdout.splitlines()) == 5


def test_a_sheet_of_pictures(shelf, tmp_path):
    assert recalled(shelf, "-k", 3, "--sheet", tmp_path / "found.png").exit_code == 0
    with Image.open(tmp_path / "found.png") as picture:
        assert picture.size[0] > picture.size[1] > 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--page", "0"), "--page must be a number from 1 on"),
        (("--page", "2@"), "--page must be a number from 1 on"),
        (("--page", "2@99"), "version 99 of the library is no more"),
        (("--after", "soon"), "--after must be seconds or a time"),
        (("--after", "9", "--before", "3"), "before must be later than after"),
        (("--tag", ""), "is no tag"),
        (("--sheet", "found.gif"), "found.gif: a sheet of pictures is a file that ends in .png"),
    ],
)
def test_wishes_of_recall_that_cannot_be_met_are_named(shelf, options, message):
    result = recalled(shelf, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_what_is_said_is_found_and_shown_and_read_again_when_it_changes(tmp_path, embedder):
    rng = np.random.default_rng(0)
    videos = [tmp_path / "one.mp4", tmp_path / "two.mp4"]
    for video in videos:
        write_video(video, rng.integers(0, 256, (60, 48, 64, 3), dtype=np.uint8), fps=5)
    options = ("--embedder", embedder, "--segmenter", "uniform", "--max-event-seconds", 4)
    said = "1\n00:00:05,000 --> 00:00:07,000\nIf it rains, we open the umbrella.\n"
    (tmp_path / "two.en.srt").write_text(said)
    first = marc("remember", *videos, *options)
    assert first.exit_code == 0, first.output
    assert "two.mp4: 5 events, subtitles of two.en.srt" in " ".join(first.stderr.split())

    def recalled() -> list[str]:
        return marc("recall", "Where is the umbrella?", "--embedder", embedder, "-k", 20).stdout.splitlines()

    assert len(recalled()) == 11
    score, clock, source = recalled()[0].split(maxsplit=2)
    start, end = (float(part.rsplit(":", 1)[1]) for part in clock.split("-"))
    assert -1 <= float(score) <= 1 and start < 7 and end > 5 and source == str(videos[1])
    assert recalled()[1].strip() == "If it rains, we open the umbrella."

    (tmp_path / "two.en.srt").write_text(said.replace("00:05", "00:01").replace("00:07", "00:02"))
    again = marc("remember", *videos, *options)
    assert again.stderr.count("known already") == 2
    assert " 0:00:00.0-" in recalled()[0] and len(recalled()) == 11
    both = marc("remember", *videos, *options, "--subtitles", tmp_path / "two.en.srt")
    assert both.exit_code == 2 and "cannot belong to 2 videos" in both.output
    (tmp_path / "two.en.srt").write_text("Dear reader")
    bad = marc("remember", *videos, *options)
    assert bad.exit_code == 0 and len(recalled()) == 10
    assert "marc remember: subtitles that cannot be read are left out:" in " ".join(bad.stderr.split())


@pytest.mark.parametrize("command", ["recall", "forget"])
def test_a_library_that_is_not_there_is_named(tmp_path, embedder, command):
    more = ("--embedder", embedder) if command == "recall" else ()
    result = marc(command, "what", "--library", tmp_path / "gone", *more)
    assert result.exit_code == 2
    assert "gone: there is no library here" in " ".join(result.output.split())
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("command", ["remember", "recall"])
def test_an_embedder_leaves_a_model_nothing_to_choose(embedder, command):
    result = marc(command, "what", "--embedder", embedder, "--model", "tiny")
    assert result.exit_code == 2
    assert "--embedder leaves nothing for --model to choose" in result.output


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            ("--ray", "local", "--embed-batch", "8"),
            "--embed-batch is for workers that embed for others; say how many by",
        ),
        (("--embed-workers", "1", "--embed-batch", "8"), "leaves nothing for --embed-workers, --embed-batch to do"),
    ],
)
def test_passes_are_shared_only_where_there_are_workers_that_embed(options, problem):
    result = marc("remember", "what.mp4", *options)
    assert result.exit_code == 2 and problem in " ".join(result.output.split())


def test_recall_from_an_empty_library_says_what_to_do(embedder):
    result = marc("recall", "a red ball", "--embedder", embedder)
    assert result.exit_code == 2
    assert "marc recall:" in result.output
    assert "use `marc remember` first" in result.output
