"""Engines on a Ray cluster of this machine give the rows of one engine, whatever dies on the way."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from marc.cluster import ClusterOptions
from marc.evaluation.cluster import engines_on_ray
from marc.evaluation.runner import RunOptions, open_run, read_run_rows, run
from marc.evaluation.samples import Sample
from marc.types import Answer

ray = pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.slow  # a cluster takes its time to start
HERE = ClusterOptions(ray="local", cpus_per_worker=0.5)
SAMPLES = [
    Sample(
        f"t/{index:06d}", f"v{index}.mp4", "Q?", "Q?", "multiple choice", "<answer>B</answer>", groups={"task": "T"}
    )
    for index in range(20, 44)
]
CARD = {"run": {"benchmark": "T", "protocol": "video-r1", "method": "full", "headline": "mean", "samples": 24}}
DRIVER = (
    "import sys; sys.path.insert(0, sys.argv[1]); from test_cluster import *; drive(Path(sys.argv[2]), sys.argv[3])"
)


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


class SlowEngine(Engine):
    """Takes its time."""

    def answer(self, samples, generation):
        time.sleep(0.3)
        return super().answer(samples, generation)


def drive(folder: Path, address: str) -> None:
    """What a run does that is to be killed: in a process of its own, on the cluster of the tests."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with engines_on_ray(partial(SlowEngine, folder), ClusterOptions(ray=address, cpus_per_worker=0.5), 2) as engines:
        rows_of(SAMPLES, engines, folder / "ray", lambda samples: CARD)


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


def test_a_caller_killed_at_random_leaves_rows_that_a_run_goes_on_from(tmp_path):
    alone = rows_of(SAMPLES, Engine(tmp_path), tmp_path / "alone", lambda samples: CARD)
    rows = tmp_path / "ray" / "rows.rank0.jsonl"
    for wanted in (3, 9):
        command = [
            sys.executable,
            "-c",
            DRIVER,
            Path(__file__).parent,
            tmp_path,
            ray.get_runtime_context().gcs_address,
        ]
        with (tmp_path / "errors").open("w") as errors, subprocess.Popen(command, stderr=errors) as caller:
            while (not rows.exists() or len(rows.read_text().splitlines()) < wanted) and caller.poll() is None:
                time.sleep(0.05)
            assert caller.poll() is None, (tmp_path / "errors").read_text()
            caller.kill()
        assert len(rows.read_text().splitlines()) < len(SAMPLES)
    with engines_on_ray(partial(Engine, tmp_path), HERE, 2) as engines:
        assert rows_of(SAMPLES, engines, tmp_path / "ray", lambda samples: CARD) == alone
    whole = [line for line in rows.read_text().splitlines() if line]
    assert len(whole) >= len(SAMPLES)


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
