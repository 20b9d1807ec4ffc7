"""A campaign goes on where it was interrupted, and fails if anything did."""

import json

import pytest

from robustness.report import Campaign


def campaign(path, seed=0, minutes=1.0, total=None):
    return Campaign("test", seed, path, minutes, total)


def test_it_goes_on_where_it_was_killed_and_its_trials_do_not_depend_on_that(tmp_path):
    path = tmp_path / "new" / "report.jsonl"
    first = campaign(path, total=5)
    drawn = {}
    for number, random in first.remaining():
        drawn[number] = random.random()
        first.add(number, "kind", 2, [], {"seconds": 0.5})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:10])
    again = campaign(path, total=5)
    assert [trial.number for trial in again.trials] == [0, 1] and again.trials[0].measured == {"seconds": 0.5}
    assert [(number, random.random()) for number, random in again.remaining()] == [(n, drawn[n]) for n in (2, 3, 4)]


def test_another_campaign_or_seed_is_refused(tmp_path):
    campaign(tmp_path / "report.jsonl")
    with pytest.raises(ValueError, match=r"report\.jsonl holds another campaign or seed"):
        campaign(tmp_path / "report.jsonl", seed=1)


def test_other_seeds_draw_other_numbers(tmp_path):
    numbers = {campaign(tmp_path / str(seed), seed).random(7).random() for seed in range(5)}
    assert len(numbers) == 5


def test_it_ends_when_its_time_is_over(tmp_path):
    assert list(campaign(tmp_path / "report.jsonl", minutes=0).remaining()) == []


@pytest.mark.parametrize(("failures", "status"), [([], 0), (["it broke"], 1)])
def test_a_failure_is_told_kept_and_the_exit_status(tmp_path, capsys, failures, status):
    started = campaign(tmp_path / "report.jsonl")
    started.add(0, "one", 3, [])
    started.add(1, "two", 4, failures)
    assert campaign(tmp_path / "report.jsonl").finish() == status
    printed = capsys.readouterr()
    assert ("it broke" in printed.err) == bool(failures)
    assert printed.out.splitlines()[-1].split() == ["all", "2", "7", str(status)]
    assert json.loads((tmp_path / "report.jsonl").read_text().splitlines()[2])["failures"] == failures
