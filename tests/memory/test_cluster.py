"""Many videos on a Ray cluster of this machine: what processes of one machine give, whatever dies on the way."""

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

from marc.cluster import ClusterOptions
from marc.memory.cluster import remember_on_ray
from marc.memory.workers import EmbedderUnavailableError, remember_all

ray = pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.slow  # a cluster takes its time to start; on a busy machine it gives up
HERE = ClusterOptions(ray="local", cpus_per_worker=1)
HELPERS = Path(__file__).parent / "helpers"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two cores of this machine, whose workers can import the tests' helpers."""
    environment = {"PYTHONPATH": str(HELPERS), "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    ray.init(num_cpus=2, runtime_env={"env_vars": environment}, **quiet)
    yield
    ray.shutdown()


def write_many(folder, write_colours, *names):
    colours = ("red", "blue", "green")
    return [str(write_colours(folder / name, *colours, seed=seed)) for seed, name in enumerate(names)]


def test_a_cluster_gives_what_one_process_gives(cluster, tmp_path, colours, write_colours):
    *good, deadly = write_many(tmp_path, write_colours, "a.mp4", "b.mp4", "once.mp4", "deadly.mp4")
    text, missing = tmp_path / "letter.mp4", tmp_path / "missing.mp4"
    text.write_text("Dear reader")
    videos = [good[0], deadly, str(text), good[1], str(missing), good[2], good[0]]
    told = []

    def run(folder):
        options = {"cluster": HERE, "folder": tmp_path / folder, "workers": 2, "progress": told.append}
        return {one.video: one for one in remember_on_ray(videos, colours.ColourEmbedder, colours.OPTIONS, **options)}

    first, again = run("ray"), run("ray")
    for outcomes in (first, again):
        assert set(outcomes) == set(videos)
        assert {video for video, one in outcomes.items() if one.error} == {deadly, str(text), str(missing)}
        assert (
            outcomes[deadly].error == f"{deadly}: the process that worked on it died, twice (out of memory, or a "
            "crash in a library)"
        )
        assert outcomes[str(missing)].error.startswith(f"{missing}: there is no such file")
    assert told[-1] == 1 and told == sorted(told[: len(told) // 2]) + sorted(told[len(told) // 2 :])
    assert all(again[video].known and not first[video].known for video in good[:2])
    alone = {
        one.video: one
        for one in remember_all(good, colours.ColourEmbedder, colours.OPTIONS, folder=tmp_path / "alone")
    }
    for video in good:
        ours, theirs = first[video].memory, alone[video].memory
        assert (ours.events, ours.thumbnails, ours.key) == (theirs.events, theirs.thumbnails, theirs.key)
        assert np.array_equal(ours.embeddings, theirs.embeddings)


def test_workers_killed_at_random_lose_no_video_and_give_none_twice(cluster, tmp_path, colours, write_colours):
    videos = write_many(tmp_path, write_colours, *(f"{index}.mp4" for index in range(8)))
    options = colours.replace(colours.OPTIONS, segmenter="colours:SlowTwoSeconds")
    outcomes = []
    for outcome in remember_on_ray(
        videos, colours.ColourEmbedder, options, cluster=HERE, folder=tmp_path / "memories", workers=2
    ):
        outcomes.append(outcome)
        if len(outcomes) in (2, 5):
            running = psutil.process_iter(["cmdline"])
            workers = [each.pid for each in running if "_Worker" in " ".join(each.info["cmdline"] or ())]
            for worker in workers[:1]:
                os.kill(worker, signal.SIGKILL)
    assert sorted(one.video for one in outcomes) == sorted(videos)
    assert all(one.memory is not None for one in outcomes), [one.error for one in outcomes]
    assert len(list((tmp_path / "memories").glob("*.marc"))) == 8


def test_an_embedder_that_cannot_be_loaded_ends_the_run(cluster, tmp_path, colours, write_colours):
    videos = write_many(tmp_path, write_colours, "a.mp4")
    with pytest.raises(EmbedderUnavailableError, match="no weights here"):
        list(remember_on_ray(videos, colours.missing_embedder, colours.OPTIONS, cluster=HERE))


def test_a_worker_that_fits_on_no_machine_is_refused(cluster, tmp_path, colours, write_colours):
    videos = write_many(tmp_path, write_colours, "a.mp4")
    for large in (ClusterOptions("local", cpus_per_worker=99), ClusterOptions("local", gpus_per_worker=1)):
        with pytest.raises(ValueError, match=r"none of its 1 machines has the .* lower --cpus-per-worker or --gpus-"):
            list(remember_on_ray(videos, colours.ColourEmbedder, colours.OPTIONS, cluster=large))
