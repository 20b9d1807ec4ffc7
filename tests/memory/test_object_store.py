"""A library and videos on an object store: an S3-compatible server of this machine, in an environment of its own."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from marc.cli import app
from marc.cluster import ClusterOptions
from marc.memory.cluster import remember_on_ray
from marc.memory.library import MemoryLibrary
from marc.memory.objects import listed, look_up
from marc.memory.store import MemorySettings, VideoMemory
from marc.memory.workers import remember_all
from marc.types import Event

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the server is downloaded
SERVER = "moto[server,s3]==5.2.5"
SETTINGS = MemorySettings("1.0", "abc", "fp32", "uniform", "", 1.0, 20.0, 4.0, 160)
WRITER = """
import sys
from test_object_store import memory_of
from marc.memory.library import MemoryLibrary
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 4):
    MemoryLibrary(sys.argv[1]).add([memory_of(number)])
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The address of a server that keeps buckets in memory."""
    environment = tmp_path_factory.mktemp("server")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    installed = subprocess.run([environment / "bin" / "python", "-m", "pip", "install", "--quiet", SERVER])
    if installed.returncode:
        pytest.skip(f"{SERVER} cannot be installed")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with subprocess.Popen([environment / "bin" / "moto_server", "-p", str(port)], stderr=subprocess.DEVNULL) as server:
        address = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                urllib.request.urlopen(address)
                break
            except OSError:
                time.sleep(0.1)
        yield address
        server.terminate()


@pytest.fixture
def bucket(store, monkeypatch, request) -> str:
    """An empty bucket, and the settings by which it is found."""
    name = f"bucket-{abs(hash(request.node.name)) % 10**6}"
    urllib.request.urlopen(urllib.request.Request(f"{store}/{name}", method="PUT"))
    settings = {"ENDPOINT": store, "ALLOW_HTTP": "true", "REGION": "us-east-1"}
    keys = {"ACCESS_KEY_ID": "somebody", "SECRET_ACCESS_KEY": "anything"}
    for key, value in {**settings, **keys}.items():
        monkeypatch.setenv(f"AWS_{key}", value)
    return f"s3://{name}/memories"


def memory_of(number: int) -> VideoMemory:
    """Three events of a video."""
    vectors = np.random.default_rng(number).normal(size=(3, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    events = tuple(Event(2.0 * index, 2.0 * index + 2) for index in range(3))
    return VideoMemory(f"/videos/{number}.mp4", f"{number:064d}", events, vectors, (b"x",) * 3, SETTINGS, {})


def test_what_is_entered_is_there_once_and_goes_again(bucket):
    library = MemoryLibrary(bucket)
    library.add([memory_of(1), memory_of(2)])
    library.add([memory_of(1)])
    assert library.videos() == {"/videos/1.mp4": 3, "/videos/2.mp4": 3}
    assert library.holds(memory_of(1)) and not library.holds(memory_of(3))
    assert library.remove("/videos/2.mp4") == 3
    library.optimize()
    assert MemoryLibrary(bucket).videos() == {"/videos/1.mp4": 3}


def test_cosines_are_those_of_a_folder(bucket, tmp_path):
    memories = [memory_of(number) for number in range(5)]
    query = memory_of(9).embeddings[0]
    found = []
    for address in (bucket, tmp_path):
        library = MemoryLibrary(address)
        library.add(memories)
        (table,) = library._tables()
        found.append(library.nearest(table, query, 15))
    assert found[0] == found[1]
    vectors = np.concatenate([memory.embeddings for memory in memories]).astype(np.float64)
    assert [one.score for one in found[0]] == pytest.approx(
        np.sort(vectors @ query.astype(np.float64))[::-1], abs=1e-6
    )


def test_writers_of_other_processes_lose_nothing_and_double_nothing(bucket):
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{WRITER}",
        bucket,
    ]
    MemoryLibrary(bucket).add([memory_of(99)])
    writers = [subprocess.Popen([*command, str(first)]) for first in (0, 2, 4)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    library = MemoryLibrary(bucket)
    library.mend()
    assert library.videos() == {f"/videos/{number}.mp4": 3 for number in (*range(8), 99)}


@pytest.fixture
def films(bucket, tmp_path, write_colours, monkeypatch) -> list[str]:
    """Addresses of two films, of something that is none, and of nothing."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "helpers"))  # of the cluster's workers
    folder = bucket.removesuffix("memories") + "films"
    store = s3fs.S3FileSystem(client_kwargs={"endpoint_url": os.environ["AWS_ENDPOINT"]})
    for index in range(2):
        film = write_colours(tmp_path / f"{index}.mp4", "red", "green", "blue", seed=index)
        store.put_file(str(film), f"{folder}/deep/{index}.mp4")
    store.pipe_file(f"{folder}/letter.mp4", b"Dear reader")
    store.pipe_file(f"{folder}/letter.txt", b"Dear reader")
    return [*listed(folder, {".mp4"}), f"{folder}/missing.mp4"]


def test_objects_are_remembered_by_processes_and_a_cluster_alike(films, tmp_path, colours):
    def run(remember, folder, **options):
        outcomes = remember(films, colours.ColourEmbedder, colours.OPTIONS, folder=folder, workers=2, **options)
        return {one.video.rpartition("/films/")[2]: one for one in outcomes}

    first, again = (run(remember_all, tmp_path / "processes") for _ in range(2))
    on_ray = run(remember_on_ray, tmp_path / "ray", cluster=ClusterOptions("local"))
    for outcomes in (first, again, on_ray):
        assert set(outcomes) == {"deep/0.mp4", "deep/1.mp4", "letter.mp4", "missing.mp4"}
        assert all(one.error.startswith(f"{one.video}: ") for one in outcomes.values() if one.memory is None)
        assert "there is no such object" in outcomes["missing.mp4"].error
    for name in ("deep/0.mp4", "deep/1.mp4"):
        assert (first[name].known, again[name].known, on_ray[name].known) == (False, True, False)
        assert first[name].memory.source == first[name].video
        assert np.array_equal(first[name].memory.embeddings, on_ray[name].memory.embeddings)


def test_one_set_of_variables_is_for_library_and_videos(bucket, films, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", os.environ["AWS_ENDPOINT"])
    monkeypatch.delenv("AWS_ENDPOINT")
    assert look_up(films[0]).size > 0
    library = MemoryLibrary(bucket)
    library.add([memory_of(1)])
    assert library.videos() == {"/videos/1.mp4": 3}


def test_the_commands_take_addresses(bucket, films, tmp_path, monkeypatch):
    monkeypatch.setenv("MARC_LIBRARY", bucket)
    (tmp_path / "films.txt").write_text("# films\n" + "\n".join(films[:2]))
    options = ("--segmenter", "uniform", "--max-event-seconds", "4", "--memory-folder", tmp_path / "memories")
    for known in ("", ", known already"):
        done = marc("remember", f"@{tmp_path / 'films.txt'}", "--embedder", "tiny", *options)
        assert done.exit_code == 0, done.output
        assert [f"{film}: 2 events{known}" in done.output.splitlines() for film in films[:2]] == [True, True]
    folder = films[0].rpartition("/")[0]
    found = marc("recall", "red", "--embedder", "tiny", "--video", folder, "--json", "--sheet", tmp_path / "sheet.png")
    assert {event["source"] for event in json.loads(found.stdout)["events"]} == set(films[:2])
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    answered = marc("ask", films[0], "What is there?", "--json", *options)
    assert answered.exit_code == 0 and json.loads(answered.stdout)["answer"], answered.output
    missing = marc("ask", films[-1], "What is there?")
    assert missing.exit_code == 2 and f"{films[-1]}: there is no such object" in missing.output
    assert marc("forget", *films[:2]).output.splitlines() == [f"{film}: 2 events forgotten" for film in films[:2]]


def marc(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
