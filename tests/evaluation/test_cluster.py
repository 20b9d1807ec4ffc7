"""Engines on a Ray cluster of this machine give the rows of one engine, whatever dies on the way."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from marc.cluster import ClusterOptions
from marc.evaluation.cluster import engines_on_ray
from marc.evaluation.runner import RunOptions, open_run, read_run_rows, run
from marc.types import Answer

ray = pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.slow  # a cluster takes its time to start
HERE = ClusterOptions(ray="local", cpus_per_worker=0.5)


class Engine:
    """Repeats the number of a sample; the process dies at sample 4 once, at sample 7 whenever it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def card(self):
        return {"model": "parrot"}

    def answer(self, samples, generation):
        for sample in samples:
            number = int(sample.id[-6:])
            died = self.folder / f"died at {number}"
            if number == 7 or (number == 4 and not died.exists()):
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return [Answer("", f"<answer>{sample.id}</answer>") for sample in samples]


def no_engine():
    raise ValueError("no weights here")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(num_cpus=2, **quiet)
    yield
    ray.shutdown()


def rows_of(samples, engine, folder, card):
    open_run(folder, card(samples))
    run(samples, engine, folder, RunOptions("video-r1", batch_size=1))
    return {row["id"]: row for row in read_run_rows(folder)}


def test_a_cluster_gives_the_rows_of_one_engine(make_samples, card, tmp_path):
    samples = [sample for index, sample in enumerate(make_samples(12)) if index not in (6, 7, 8)]
    (tmp_path / "died at 4").touch()
    alone = rows_of(samples, Engine(tmp_path), tmp_path / "alone", card)
    (tmp_path / "died at 4").unlink()
    with engines_on_ray(partial(Engine, tmp_path), HERE, 2) as engines:
        assert engines.card() == {"model": "parrot"}
        assert rows_of(samples, engines, tmp_path / "ray", card) == alone
        assert (tmp_path / "died at 4").exists(), "an engine has died on the way"
        lines = (tmp_path / "ray" / "rows.rank0.jsonl").read_text().splitlines()
        assert len(lines) == len(samples), "a row of each sample, once"
        assert rows_of(samples, engines, tmp_path / "ray", card) == alone, "nothing is left to be asked"


def test_a_sample_that_kills_its_engine_fails_with_those_of_its_video(make_samples, card, tmp_path):
    with engines_on_ray(partial(Engine, tmp_path), HERE, 2) as engines:
        rows = rows_of(make_samples(12), engines, tmp_path / "ray", card)
    failed = {key: row["reason"] for key, row in rows.items() if row["status"] == "failed"}
    assert set(failed) == {"t/000006", "t/000007", "t/000008"}
    assert set(failed.values()) == {"the process of the engine died, twice (out of memory, or a crash in a library)"}


def test_engines_without_room_hold_nothing_up(make_samples, card, tmp_path):
    (tmp_path / "died at 4").touch()
    large = ClusterOptions(ray="local", cpus_per_worker=1.5)
    with engines_on_ray(partial(Engine, tmp_path), large, 3) as engines:
        rows = rows_of(make_samples(6), engines, tmp_path / "ray", card)
    assert [row["status"] for row in rows.values()] == ["ok"] * 6


def test_an_engine_that_cannot_be_loaded_is_named():
    with (
        engines_on_ray(no_engine, HERE, 1) as engines,
        pytest.raises(ValueError, match=r"cannot be loaded on the cluster: .*no weights here"),
    ):
        engines.card()
