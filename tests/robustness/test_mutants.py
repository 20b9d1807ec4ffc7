"""A part of the campaign of mutants by a seed, and faults that it must find."""

import os
import re
import time
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest

from marc.video.limits import limits_of
from marc.video.process import POOL
from robustness import mutants
from robustness.mutants import MEMORY, Attack, Baseline, main, run
from robustness.mutations import mutated, mutated_beside, png_chunks, with_right_checksums
from robustness.report import Campaign
from robustness.samples import samples

SECONDS = 15.0


@pytest.fixture(scope="module", autouse=True)
def no_decoding_process_of_other_tests():
    """Their number and memory are judged."""
    POOL.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    os.environ.setdefault("SVT_LOG", "1")
    folder = tmp_path_factory.mktemp("samples")
    return folder, samples(folder)


def sources(seed: int):
    return lambda number: Random(f"{seed} {number}")


def test_mutants_of_every_kind_are_read_or_refused(made):
    folder, files = made
    assert len(files) >= 32
    attack, outcomes, failures = Attack(folder, files), Counter(), []
    begin = time.monotonic()
    with limits_of(MEMORY):
        attack.trial("h264.mp4", sources(0), 1)
        baseline = Baseline.now(folder)
        for seed in range(40):
            for kind in attack.kinds:
                found, came = attack.trial(kind, sources(seed), 4)
                failures += [f"{kind}, seed {seed}: {each}" for each in found]
                outcomes += came
            if time.monotonic() - begin > SECONDS:
                break
        faults, measured = baseline.faults(folder)
    assert not failures and not faults
    assert min(outcomes["read"], outcomes["refused"], outcomes["same"]) >= 10
    assert measured["child_mib"] > 10


def test_samples_themselves_are_read(made):
    folder, files = made
    with limits_of(MEMORY):
        for kind, (content, _) in files.items():
            path = folder / f"whole{Path(kind).suffix}"
            path.write_bytes(content)
            Attack(folder, files)._reader(kind, Random(0))(path)
            path.unlink()


@pytest.mark.parametrize("error", [RuntimeError("foreign"), AssertionError("ours"), RecursionError("deep")])
def test_a_foreign_exception_is_found(error, made, monkeypatch):
    def broken(path):
        raise error

    monkeypatch.setattr(Attack, "_reader", lambda self, kind, chance: broken)
    monkeypatch.setattr(mutants, "BESIDE", 0)
    failures, outcomes = Attack(*made).trial("h264.mp4", sources(1), 3)
    assert len(failures) == 3 and not outcomes
    assert re.match(rf"mutant 0: {type(error).__name__}: {error}", failures[0])


def test_a_wrong_frame_and_slowness_are_found(made, monkeypatch):
    attack = Attack(*made)
    monkeypatch.setattr(mutants, "BESIDE", 1.0)
    assert attack.trial("still.png", sources(2), 3) == ([], {"same": 3})
    attack._known["still.png"] = attack._known["still.png"] + 1
    failures, _ = attack.trial("still.png", sources(2), 2)
    assert len(failures) == 2 and "a wrong frame was taken for right" in failures[0]
    monkeypatch.setattr(mutants, "LIMIT", -100.0)
    monkeypatch.setattr(Attack, "_compare", lambda self, kind, path: "same")
    failures, _ = attack.trial("still.png", sources(2), 1)
    assert "took too long" in failures[0]


def test_what_is_left_behind_is_found(tmp_path):
    baseline = Baseline.now(tmp_path)
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    for number in range(60):
        (tmp_path / str(number)).touch()
    ballast = np.ones(mutants.MOST_GROWTH // 4, np.uint64)
    faults, _ = baseline.faults(tmp_path)
    assert [re.sub(r"\d+", "N", fault) for fault in faults] == [
        "this process grew by N MiB",
        "N descriptors were left open",
        "files were left behind",
    ]
    del ballast
    for descriptor in opened:
        os.close(descriptor)


def test_a_trial_can_be_done_again_and_a_campaign_gone_on_with(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        mutants, "samples", lambda folder: {k: v for k, v in samples(folder).items() if "h264.mp4" in k}
    )
    for _ in range(2):
        campaign = Campaign("mutants", 5, tmp_path / "log.jsonl", 1.0, total=2)
        run(campaign, tmp_path, mutants=6)
        assert [trial.number for trial in campaign.trials] == [0, 1]
    assert main(["--seed", "5", "--trial", "1"]) == 0
    assert "outcomes:" in capsys.readouterr().out


def test_mutations_follow_from_their_seed_and_change_something(made):
    _, files = made
    others = [content for content, _ in files.values()]
    changed = 0
    for content, structure in files.values():
        one, again = (mutated(content, structure, Random(3), others) for _ in range(2))
        assert one == again
        changed += one != content
    assert changed > 0.8 * len(files)


def test_structures_cover_their_files(made):
    """What a file is made of is found whole: the parts of the outermost level reach its end."""
    for kind, (content, structure) in made[1].items():
        regions = list(structure(content))
        assert len(regions) >= 2, kind
        assert all(region.start <= region.body <= region.end <= len(content) for region in regions), kind
        assert max(region.end for region in regions) >= len(content) - 200, kind


def test_beside_the_pictures_is_another_place_than_in_them(made):
    kinds = [kind for kind, (content, structure) in made[1].items() if mutated_beside(content, structure, Random(0))]
    assert {"h264.mp4", "h264.mkv", "mpeg4.avi", "h264.ts", "still.png", "still.jpg", "still.gif"} <= set(kinds)
    content, structure = made[1]["still.png"]
    assert with_right_checksums(content) == content
    assert any(region.is_beside for region in png_chunks(content))
    other = mutated_beside(content, structure, Random(0))
    assert other is not None and len(other) == len(content) and other != content
