"""Rounds of the arena on the embedded model: what is asked at which cost, and going on after a kill."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch

from marc.compression.rivals.rule import RULES
from marc.evaluation.arena.options import CONTESTANTS, ArenaOptions, compression_of
from marc.evaluation.arena.rounds import ROWS, SETTINGS, Round, play
from marc.inference.hf import HFBackend
from marc.inference.video_input import VideoInput, VisualPatches, at_compression
from marc.model.loading import load_model
from marc.world.export import video_questions
from marc.world.frames import draw_frames
from marc.world.levels import sample
from marc.world.measure import answers_right
from marc.world.options import WorldOptions

WORLD = WorldOptions(seed=7, videos=2, questions=4)
OPTIONS = ArenaOptions(WORLD, 2, ("events", "events blind", "frames", "holitom", "random"), ("1/32", "1/4"))


@pytest.fixture(scope="module")
def embedded():
    return load_model("tiny", device="cpu")


@pytest.fixture(scope="module")
def played(embedded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("arena")
    return folder, [each for each, total in play(*embedded, OPTIONS, folder) if total == 4]


def test_everybody_answers_every_question_at_its_cost(played):
    _, rounds = played
    assert [(each.seed, each.index) for each in rounds] == [(7, 0), (7, 1), (8, 0), (8, 1)]
    for each in rounds:
        whole = each.outcomes["full", "1"].prompt_tokens
        assert set(each.outcomes) == set(OPTIONS.entries) and len(each.outcomes) == 11
        assert all(len(own.right) == len(each.kinds) == 4 for own in each.outcomes.values())
        for name in ("events", "events blind", "holitom", "random"):
            for part, share in (("1/32", 32), ("1/4", 4)):
                assert each.outcomes[name, part].prompt_tokens == max(3, whole // share)
        assert each.outcomes["frames", "1/4"].prompt_tokens <= whole // 4
    assert any(not all(own.right) for each in rounds for own in each.outcomes.values())


@pytest.mark.parametrize("name", ["events", "random", "visionzip"])
def test_an_outcome_is_the_models_answers_to_this_look_alone(embedded, played, name, tmp_path):
    """Encoded and asked by itself, from pixels of its own."""
    options = dataclasses.replace(OPTIONS, contestants=(name,), parts=("1/4",), seeds=1)
    *_, (last, _) = play(*embedded, options, tmp_path)
    model, processor = embedded
    video = sample("easy", "test", 7, 1)
    events = video.event_of_frame[::2] if name == "events" else None
    patches = VisualPatches.of_frames(processor, draw_frames(video), events)
    tokens = last.outcomes["full", "1"].prompt_tokens // 4
    compression = compression_of(name, tokens, patches.tokens // patches.grid_thw[0], model.compression)
    seen = VideoInput.of(patches, processor, compression)
    backend = HFBackend(model, processor)
    with at_compression(model, compression):
        backend.encode([seen])
    asked = video_questions(video, "test", 7, 1, 4)
    assert last.outcomes[name, "1/4"].right == tuple(
        answers_right(backend, model.config.prompt_style, [seen], [asked])
    )


def test_a_run_that_is_killed_goes_on_with_the_same_rows(embedded, played, tmp_path):
    folder, _ = played
    whole = (folder / ROWS).read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / SETTINGS).write_bytes((folder / SETTINGS).read_bytes())
    (tmp_path / ROWS).write_bytes(b"".join(lines[:2]) + lines[2][:50])
    assert len(list(play(*embedded, OPTIONS, tmp_path))) == 4
    assert (tmp_path / ROWS).read_bytes() == whole


@pytest.mark.parametrize("name", ["events", "visionzip"])
def test_what_the_tower_saw_serves_a_model_with_other_words(embedded, name, tmp_path, monkeypatch):
    options = dataclasses.replace(OPTIONS, contestants=(name,), parts=("1/4",), seeds=1, every_token=False)
    looks = {}
    first = [each for each, _ in play(*embedded, options, tmp_path / "first", looks=looks)]
    model, processor = copy.deepcopy(embedded[0]), embedded[1]
    with torch.no_grad():
        model.lm_head.weight.copy_(model.lm_head.weight.flip(0))
    alone = [each for each, _ in play(model, processor, options, tmp_path / "alone")]
    monkeypatch.setattr(model.model.visual, "forward", None)
    assert [each for each, _ in play(model, processor, options, tmp_path / "kept", looks=looks)] == alone != first


def test_another_comparison_in_the_same_folder_is_refused(embedded, played):
    other = dataclasses.replace(OPTIONS, parts=("1/32",))
    with pytest.raises(ValueError, match=r"settings.json is of another comparison \(parts differ\): choose another"):
        next(play(*embedded, other, played[0]))


def test_a_comparison_that_has_no_round_yet_may_be_changed(embedded, tmp_path):
    (tmp_path / SETTINGS).write_text('{"weights": "of a model that was refused"}')
    options = dataclasses.replace(OPTIONS, contestants=("events",), parts=("1/4",), seeds=1)
    assert len(list(play(*embedded, options, tmp_path))) == 2


def test_rounds_survive_the_file(played):
    for each in played[1]:
        assert Round.from_line(each.to_line().encode(), ROWS) == each
        assert json.loads(each.to_line())["kinds"] == list(each.kinds)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contestants": ("events", "best")}, "rule must be of details, events, .*got best"),
        ({"contestants": ()}, "rule needs different ones, at least one"),
        ({"parts": ("1/4", "1/4")}, "part needs different ones"),
        ({"parts": ("3/2",)}, "part must be a fraction between 0 and 1 such as 1/32, got '3/2'"),
        ({"parts": ("1/0",)}, "part must be a fraction"),
        ({"seeds": 0}, "seeds must be at least 1"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(OPTIONS, **changes)


def test_every_rule_may_compete():
    assert set(CONTESTANTS) == {"events", "events blind", "details blind", "frames", *RULES}
    assert len(set(CONTESTANTS)) == len(CONTESTANTS)
    names = np.array([compression_of(name, 34, 8, load_model("tiny")[0].compression).layout for name in CONTESTANTS])
    assert set(names) == {"events", "frames", *RULES}
