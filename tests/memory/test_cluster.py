"""Many videos on a Ray cluster of this machine: what processes of one machine give, whatever dies on the way."""

import io
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from marc.cluster import ClusterOptions
from marc.memory.cluster import remember_on_ray
from marc.memory.embedder import EventEmbedder
from marc.memory.options import MemoryOptions
from marc.memory.remote_embedder import embed_workers
from marc.memory.workers import EmbedderUnavailableError, remember_all

ray = pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.slow  # a cluster takes its time to start; on a busy machine it gives up
HERE = ClusterOptions(ray="local", cpus_per_worker=1)
TWO_POOLS = ClusterOptions(ray="local", cpus_per_worker=0.5, embed_workers=2)
SHARED = ClusterOptions(ray="local", cpus_per_worker=0.5, embed_workers=1, embed_batch=16)
BOTH = pytest.mark.parametrize("where", [HERE, TWO_POOLS], ids=["one pool", "two pools"])
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


@BOTH
def test_a_cluster_gives_what_one_process_gives(cluster, tmp_path, colours, write_colours, where):
    *good, deadly = write_many(tmp_path, write_colours, "a.mp4", "b.mp4", "once.mp4", "deadly.mp4")
    text, missing = tmp_path / "letter.mp4", tmp_path / "missing.mp4"
    text.write_text("Dear reader")
    videos = [good[0], deadly, str(text), good[1], str(missing), good[2], good[0]]
    told = []

    def run(folder):
        options = {"cluster": where, "folder": tmp_path / folder, "workers": 2, "progress": told.append}
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


@pytest.mark.parametrize(
    ("where", "kinds"),
    [
        (HERE, ["_Worker"]),
        (TWO_POOLS, ["_Worker", "EmbedWorker"]),
        (TWO_POOLS, ["EmbedWorker", "EmbedWorker"]),
        (SHARED, ["SharedWorker", "RemoteEmbedder"]),
    ],
    ids=["one pool", "both of two pools", "those that embed", "those that embed several videos at once"],
)
def test_workers_killed_at_random_lose_no_video_and_give_none_twice(
    cluster, tmp_path, colours, write_colours, where, kinds
):
    videos = write_many(tmp_path, write_colours, *(f"{index}.mp4" for index in range(8)))
    options = colours.replace(colours.OPTIONS, segmenter="colours:SlowTwoSeconds")
    outcomes, killed = [], []
    for outcome in remember_on_ray(
        videos, colours.SlowColourEmbedder, options, cluster=where, folder=tmp_path / "memories", workers=2
    ):
        outcomes.append(outcome)
        if len(outcomes) in (2, 5):
            kind = kinds[len(killed) % len(kinds)]
            worker = workers_called(kind)[0]
            os.kill(worker, signal.SIGKILL)
            killed.append(worker)
    assert len(killed) == 2
    assert sorted(one.video for one in outcomes) == sorted(videos)
    assert all(one.memory is not None for one in outcomes), [one.error for one in outcomes]
    assert len(list((tmp_path / "memories").glob("*.marc"))) == 8


def workers_called(kind: str) -> list[int]:
    """Processes of the cluster's actors of a class, as Ray names them, that are idle or at work."""
    named = ((each.pid, " ".join(each.info["cmdline"] or ())) for each in psutil.process_iter(["cmdline"]))
    return [pid for pid, name in named if name.startswith("ray::") and kind in name.replace("_map_worker", "")]


def test_a_caller_killed_at_random_loses_the_videos_in_work_only(cluster, tmp_path, colours, write_colours):
    videos = write_many(tmp_path, write_colours, *(f"{index}.mp4" for index in range(8)))
    address, folder = ray.get_runtime_context().gcs_address, tmp_path / "memories"
    done = set()
    for count in (1, 2):
        command = [sys.executable, HELPERS / "on_ray.py", address, folder, *videos]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as caller:
            done |= {caller.stdout.readline().strip() for _ in range(len(done) + count)}
            caller.kill()
    options = colours.replace(colours.OPTIONS, segmenter="colours:SlowTwoSeconds")
    run = remember_on_ray(videos, colours.ColourEmbedder, options, cluster=TWO_POOLS, folder=folder, workers=2)
    outcomes = {one.video: one for one in run}
    assert set(outcomes) == set(videos) and not any(one.error for one in outcomes.values())
    assert done <= {video for video, one in outcomes.items() if one.known}, "what was told is there"
    assert len(list(folder.glob("*.marc"))) == 8


@pytest.fixture(params=["tiny", "clips"])
def on_ray_and_alone(cluster, tmp_path, colours, write_colours, request):
    """Memories of some videos by workers of two pools, each with that of one process."""

    def remembered(pools, count):
        videos = write_many(tmp_path, write_colours, *(f"{index}.mp4" for index in range(count)))
        lengths = {"min_event_seconds": 1.0, "max_event_seconds": 2.0, "seconds_per_frame": 0.25}
        options = MemoryOptions(segmenter="uniform", **lengths)
        tiny = partial(EventEmbedder.from_pretrained, "tiny", device="cpu")
        load = tiny if request.param == "tiny" else colours.ClipEmbedder
        alone = {one.video: one.memory for one in remember_all(videos, load, options, folder=tmp_path / "alone")}
        found = list(remember_on_ray(videos, load, options, cluster=pools, folder=tmp_path / "ray", workers=2))
        assert {one.video for one in found} == set(videos) and not any(one.known for one in found)
        return [(one.memory, alone[one.video]) for one in found]

    return remembered


def test_vectors_of_two_pools_are_those_of_one_process(on_ray_and_alone):
    for found, alone in on_ray_and_alone(TWO_POOLS, 2):
        assert (found.key, found.thumbnails) == (alone.key, alone.thumbnails)
        assert np.array_equal(found.embeddings, alone.embeddings)
        assert all(map(np.array_equal, found.looks, alone.looks))


def test_vectors_of_shared_passes_are_nearly_those_of_one_process(on_ray_and_alone):
    for found, alone in on_ray_and_alone(SHARED, 4):
        assert (found.key, found.thumbnails) == (alone.key, alone.thumbnails)
        np.testing.assert_allclose(found.embeddings, alone.embeddings, atol=1e-6)


def pictures(count, *colour):
    """Small pictures of one colour, as JPEG."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, "JPEG")
    return [buffer.getvalue()] * count


def test_what_several_ask_for_at_once_is_one_pass(cluster, tmp_path, colours):
    held = partial(colours.HeldEmbedder, tmp_path)
    with ThreadPoolExecutor(6) as askers, embed_workers(held, SHARED, askers=8) as load:
        ask = load().embed_pictures
        answers = [askers.submit(ask, pictures(count, 200, 20, 20)) for count in (1, 2, 3, 4, 5)]
        error = askers.submit(ask, [b"no picture"]).exception(60)
        assert "cannot identify image" in str(error), "pictures are read while a pass runs"
        (tmp_path / "go").touch()
        vectors = [answer.result(60) for answer in answers]
    assert [len(each) for each in vectors] == [1, 2, 3, 4, 5]
    passes = [int(each.suffix.removeprefix(".of")) for each in tmp_path.glob("*.of*")]
    assert sum(passes) == 15 and len(passes) < 5


def test_a_picture_that_kills_whoever_embeds_it_takes_none_of_its_pass_with_it(cluster, colours):
    with ThreadPoolExecutor(6) as askers, embed_workers(colours.FuseEmbedder, SHARED, askers=8) as load:
        asked = [askers.submit(load().embed_pictures, pictures(2, 200, green, 20)) for green in (20, 250, 21, 22, 23)]
        errors = [each.exception(120) for each in asked]
    assert str(errors.pop(1)).startswith("the process that embedded its pictures died, again and again")
    assert errors == [None] * 4


def test_a_picture_that_kills_whoever_embeds_it_fails_its_video_only(cluster, tmp_path, colours, write_colours):
    videos = [str(write_colours(tmp_path / f"{seed}.mp4", "red", "blue", "red", seed=seed)) for seed in range(2)]
    deadly = str(write_colours(tmp_path / "green.mp4", "red", "green", "blue"))
    run = remember_on_ray([videos[0], deadly, videos[1]], colours.FuseEmbedder, colours.OPTIONS, cluster=TWO_POOLS)
    outcomes = {one.video: one for one in run}
    assert outcomes[deadly].error.startswith(f"{deadly}: the process that embedded its pictures died, again and again")
    assert all(outcomes[video].memory is not None for video in videos)


@BOTH
def test_an_embedder_that_cannot_be_loaded_ends_the_run(cluster, tmp_path, colours, write_colours, where):
    videos = write_many(tmp_path, write_colours, "a.mp4")
    with pytest.raises(EmbedderUnavailableError, match=r"no weights here$"):
        list(remember_on_ray(videos, colours.missing_embedder, colours.OPTIONS, cluster=where))


def test_a_worker_that_fits_on_no_machine_is_refused(cluster, tmp_path, colours, write_colours):
    videos = write_many(tmp_path, write_colours, "a.mp4")
    for large in (
        ClusterOptions("local", cpus_per_worker=99),
        ClusterOptions("local", gpus_per_worker=1),
        ClusterOptions("local", cpus_per_worker=1, embed_workers=2),
    ):
        with pytest.raises(ValueError, match=r"none of its 1 machines has the .* lower --cpus-per-worker or --gpus-"):
            list(remember_on_ray(videos, colours.ColourEmbedder, colours.OPTIONS, cluster=large))
