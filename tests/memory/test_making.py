"""One process makes a memory at a time; others wait for it, and hear how far it is."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from marc.memory import index, making
from marc.memory.index import memory_key, remember
from marc.memory.making import Errand, has_failed, is_being_made, made_alone
from marc.memory.options import MemoryOptions
from marc.memory.store import find_memory

UNIFORM = MemoryOptions(segmenter="uniform")
HOLDER = """
import sys, time
from marc.memory.making import made_alone
with made_alone("key", None) as tell:
    tell(0.25)
    print("held", flush=True)
    time.sleep(float(sys.argv[1]))
"""


def holder(seconds: float) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_waited_for_and_heard():
    heard = []
    with holder(1.0) as process:
        assert is_being_made("key") and not is_being_made("another")
        with made_alone("key", heard.append) as making_it:
            assert process.wait() == 0
            making_it(0.5)
    assert heard[0] == 0.25 and heard[-1] == 0.5
    assert not is_being_made("key")


def test_a_killed_process_gives_way():
    with holder(60) as process:
        process.kill()
        process.wait()
        assert not is_being_made("key")
        with made_alone("key", None) as making_it:
            assert is_being_made("key")
            making_it(1.0)
    assert not list(making.cache_folder("making").iterdir())


def test_without_a_cache_both_do_the_work(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    heard = []
    with made_alone("key", heard.append) as making_it:
        making_it(0.5)
    assert heard == [0.5] and not is_being_made("key")


def test_what_another_process_made_meanwhile_is_not_made_again(three_shots, embedder, tmp_path, monkeypatch):
    made = remember(three_shots, embedder, UNIFORM, folder=tmp_path / "made")
    monkeypatch.setattr(index, "build_memory", lambda *_: pytest.fail("it was made"))
    looks = iter([None, made])
    monkeypatch.setattr(index, "find_memory", lambda *_: next(looks))
    with holder(0.5) as process:
        monkeypatch.setattr(index, "memory_key", lambda *_: "key")
        assert remember(three_shots, embedder, UNIFORM, folder=tmp_path / "other") is made
        assert process.wait() == 0


def test_an_errand_makes_the_memory_in_a_process_of_its_own(three_shots, embedder, dual_encoder_folder, tmp_path):
    key = memory_key(three_shots, embedder, UNIFORM)
    folder = tmp_path / "memories"
    errand = Errand(str(three_shots), str(dual_encoder_folder), "fp32", "cpu", UNIFORM, str(folder))
    process = errand.send(key)
    assert is_being_made(key)
    assert os.getsid(process) == process, "it goes on when this one's terminal is closed"
    while is_being_made(key) and not list(folder.glob("*.marc")):
        time.sleep(0.1)
    found = find_memory(three_shots, index.memory_settings(UNIFORM, embedder), folder)
    assert found is not None
    assert found.events == remember(three_shots, embedder, UNIFORM, folder=tmp_path / "here").events


def test_a_killed_errand_is_no_longer_expected(three_shots, dual_encoder_folder, tmp_path):
    process = Errand(str(three_shots), str(dual_encoder_folder), "fp32", "cpu", UNIFORM, str(tmp_path)).send("key")
    assert is_being_made("key")
    os.kill(process, signal.SIGKILL)
    for _ in range(100):
        if not is_being_made("key"):
            break
        time.sleep(0.05)
    assert not is_being_made("key") and not has_failed("key")


def test_an_errand_that_fails_says_so(dual_encoder_folder, tmp_path):
    (tmp_path / "letter.mp4").write_text("Dear reader")
    errand = Errand(str(tmp_path / "letter.mp4"), str(dual_encoder_folder), "fp32", "cpu", UNIFORM, str(tmp_path))
    errand.send("key")
    while is_being_made("key"):
        time.sleep(0.1)
    assert has_failed("key")


def test_nothing_is_imported_from_the_current_folder(
    three_shots, embedder, dual_encoder_folder, tmp_path, monkeypatch
):
    (tmp_path / "json.py").write_text("raise SystemExit('a file of somebody else')")
    monkeypatch.chdir(tmp_path)
    key = memory_key(three_shots, embedder, UNIFORM)
    Errand(str(three_shots), str(dual_encoder_folder), "fp32", "cpu", UNIFORM, str(tmp_path)).send(key)
    while is_being_made(key):
        time.sleep(0.1)
    assert not has_failed(key) and list(tmp_path.glob("*.marc"))


def test_an_errand_arrives_as_it_was_sent():
    errand = Errand("a.mp4", "tiny", "bf16", "cpu", MemoryOptions(max_event_seconds=9), None)
    assert Errand.received(json.dumps(asdict(errand))) == errand
