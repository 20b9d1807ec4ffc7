import errno
import json
import os
import random
import resource
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from marc.io import sha256_of, write_atomically
from marc.memory import store
from marc.memory.store import (
    DamagedMemoryError,
    MemorySettings,
    VideoMemory,
    content_key,
    find_memory,
    load_memory,
    memory_path,
    save_memory,
)
from marc.types import Event

SETTINGS = MemorySettings("1.0", "abc", "fp32", "uniform", "", 1.0, 20.0, 4.0, 160)


@pytest.fixture
def video(tmp_path) -> Path:
    path = tmp_path / "talk [1].mp4"
    path.write_bytes(b"moving pictures" * 1000)
    return path


def memory_of(video: Path, settings: MemorySettings = SETTINGS, events: int = 3) -> VideoMemory:
    embeddings = np.random.default_rng(0).normal(size=(events, 8)).astype(np.float32)
    return VideoMemory(
        source=str(video),
        content=content_key(video),
        events=tuple(Event(index * 1.5, index * 1.5 + 1.5) for index in range(events)),
        embeddings=embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
        thumbnails=tuple(b"\xff\xd8" + bytes([index % 256]) * (5 + index) + b"\xff\xd9" for index in range(events)),
        settings=settings,
        versions={"torch": "2"},
    )


def save(memory: VideoMemory, folder=None) -> Path:
    path = memory_path(memory.source, memory.key, folder)
    save_memory(memory, path)
    return path


def test_what_is_saved_is_found_again(video):
    memory = memory_of(video)
    path = save(memory)
    found = find_memory(video, SETTINGS)
    np.testing.assert_array_equal(found.embeddings, memory.embeddings)
    assert replace(found, embeddings=memory.embeddings) == memory
    assert path.parent == video.parent
    assert [entry.name for entry in video.parent.glob(".*")] == []


def with_looks(memory: VideoMemory) -> VideoMemory:
    """With one, two and three keyframes of its events."""
    chance = np.random.default_rng(1)
    return replace(memory, looks=tuple(chance.integers(1, 127, (count, 8), dtype=np.int8) for count in (1, 2, 3)))


def test_keyframes_are_saved_where_they_are_known(video):
    memory = with_looks(memory_of(video))
    save(memory)
    found = find_memory(video, SETTINGS)
    for saved, each in zip(memory.looks, found.looks, strict=True):
        np.testing.assert_array_equal(each, saved)
    assert replace(found, embeddings=memory.embeddings, looks=()) == replace(memory, looks=())
    with pytest.raises(ValueError, match="keyframes of all its 3 events or of none"):
        replace(memory, looks=memory.looks[:2])


def test_a_memory_is_shown_in_a_few_lines(video):
    """As the last value of a notebook's cell, say: without thousands of numbers and bytes of pictures."""
    shown = repr(memory_of(video))
    assert "talk [1].mp4" in shown and "start=1.5" in shown
    assert len(repr(replace(memory_of(video), thumbnails=(b"\xff\xd8" + bytes(20_000),) * 3))) == len(shown) < 1000


def test_another_folder_can_be_chosen(video, tmp_path):
    save(memory_of(video), tmp_path / "deep" / "memories")
    assert find_memory(video, SETTINGS, tmp_path / "deep" / "memories")
    assert find_memory(video, SETTINGS) is None


@pytest.mark.parametrize("name", [field.name for field in fields(MemorySettings)])
def test_no_changed_setting_reuses_a_memory(video, name):
    save(memory_of(video))
    value = getattr(SETTINGS, name)
    changed = replace(SETTINGS, **{name: value + "x" if isinstance(value, str) else value + 1})
    assert find_memory(video, changed) is None


def test_no_changed_video_reuses_a_memory_and_a_renamed_one_does(video):
    save(memory_of(video))
    renamed = video.rename(video.with_name("renamed.mp4"))
    assert find_memory(renamed, SETTINGS)
    with open(renamed, "r+b") as file:
        file.seek(7000)
        file.write(b"!")
    assert find_memory(renamed, SETTINGS) is None


def test_a_very_long_name_still_fits_the_file_system(tmp_path):
    video = tmp_path / ("電影" * 40 + ".mp4")
    video.write_bytes(b"x")
    save(memory_of(video))
    assert find_memory(video, SETTINGS)


@pytest.mark.parametrize("damage", [b"", b"half a file", None])
def test_a_damaged_memory_is_named_and_made_again(video, caplog, damage):
    path = save(memory_of(video))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    path.write_bytes(bytes(flipped) if damage is None else damage)
    with pytest.raises(DamagedMemoryError, match="not a whole memory file"):
        load_memory(path)
    assert find_memory(video, SETTINGS) is None
    assert "remembered again" in caplog.text


def test_a_memory_cut_off_anywhere_is_noticed(video):
    path = save(memory_of(video))
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedMemoryError):
            load_memory(path)


@pytest.mark.parametrize("seed", range(4))
def test_no_mutated_byte_is_accepted(video, seed):
    """Whichever byte is changed, put in, left out or said twice: it is noticed."""
    path, chance = save(memory_of(video)), random.Random(seed)
    whole = path.read_bytes()
    for _ in range(250):
        place, end = sorted(chance.randrange(len(whole)) for _ in range(2))
        mutant = chance.choice(
            [
                whole[:place] + bytes([whole[place] ^ chance.randrange(1, 256)]) + whole[place + 1 :],
                whole[:place] + chance.randbytes(3) + whole[place:],
                whole[:place] + whole[end + 1 :],
                whole[: end + 1] + whole[place:],
            ]
        )
        path.write_bytes(mutant)
        with pytest.raises(DamagedMemoryError):
            load_memory(path)


def sealed(path: Path, change) -> None:
    """Changes the header and the arrays of a memory file as somebody would who knows its format."""
    mark, _, body = path.read_bytes().split(b"\n", 2)
    line, _, arrays = body.partition(b"\n")
    header = json.loads(line)
    arrays = change(header, arrays) or arrays
    body = json.dumps(header).encode() + b"\n" + arrays
    path.write_bytes(b"\n".join([mark, sha256_of(body).encode(), body]))


FORGED = {
    "overlapping events": lambda header, _: header["events"].__setitem__(1, [1.0, 3.0]),
    "a gap": lambda header, _: header["events"].__setitem__(1, [1.6, 3.0]),
    "an order": lambda header, _: header["events"].reverse(),
    "a late beginning": lambda header, _: header["events"].__setitem__(0, [0.5, 1.5]),
    "no length": lambda header, _: header["events"].__setitem__(2, [3.0, 3.0]),
    "no number": lambda header, _: header["events"].__setitem__(2, [3.0, float("nan")]),
    "no end": lambda header, _: header["events"].__setitem__(2, [3.0, float("inf")]),
    "a longer vector": lambda _, arrays: np.float32(9).tobytes() + arrays[4:],
    "a vector of no number": lambda _, arrays: np.float32("nan").tobytes() + arrays[4:],
    "other dimensions": lambda header, _: header.update(dimensions=9),
    "no dimensions": lambda header, arrays: header.update(dimensions=0) or arrays[96:-48],
    "a huge dimension": lambda header, _: header.update(dimensions=10**30),
    "a negative length": lambda header, _: header.update(thumbnail_bytes=[-5, 20, 12]),
    "fewer thumbnails": lambda header, _: header.update(thumbnail_bytes=[20, 10]),
    "no picture": lambda _, arrays: arrays[:96] + b"x" + arrays[97:],
    "other types": lambda header, _: header.update(events={"a": 1}),
    "missing settings": lambda header, _: header.update(settings={}),
    "a text": lambda header, _: header.update(settings="none"),
    "no versions": lambda header, _: header.update(versions=5),
    "keyframes that are not there": lambda header, _: header.update(keyframes=[1, 2, 4]),
    "keyframes of some events": lambda header, _: header.update(keyframes=[3, 3]),
    "an event without keyframes": lambda header, _: header.update(keyframes=[0, 3, 3]),
    "a keyframe without a direction": lambda _, arrays: arrays[:-8] + bytes(8),
}


@pytest.mark.parametrize("kind", FORGED)
def test_what_no_video_has_is_refused_even_under_a_right_checksum(video, kind):
    path = save(with_looks(memory_of(video)))
    sealed(path, lambda header, arrays: None)
    load_memory(path)
    sealed(path, FORGED[kind])
    with pytest.raises(DamagedMemoryError, match="not a whole memory file"):
        load_memory(path)


def test_a_deeply_nested_header_is_refused(video):
    path = save(memory_of(video))
    body = b"[" * 100_000 + b"\n"
    path.write_bytes(b"marc memory 2\n" + sha256_of(body).encode() + b"\n" + body)
    with pytest.raises(DamagedMemoryError, match="nested too deeply"):
        load_memory(path)


def test_a_memory_of_the_older_format_is_made_again_and_that_is_said(video, caplog):
    old = memory_path(video, replace(SETTINGS, format=1).key(content_key(video)))
    write_atomically(old, lambda file: np.savez(file, header=np.zeros(3)))
    with pytest.raises(DamagedMemoryError, match="format 1 of an older version"):
        load_memory(old)
    assert find_memory(video, SETTINGS) is None
    assert f"{old}: of format 1" in caplog.text and "remembered again" in caplog.text


def test_the_memory_of_another_video_under_this_ones_name_is_not_taken(video, tmp_path, caplog):
    other = tmp_path / "other.mp4"
    other.write_bytes(b"something else")
    path = save(memory_of(other))
    path.rename(memory_path(video, SETTINGS.key(content_key(video))))
    assert find_memory(video, SETTINGS) is None
    assert "of another video" in caplog.text


def test_a_memory_that_cannot_be_opened_is_damaged(tmp_path):
    with pytest.raises(DamagedMemoryError, match="cannot be read"):
        load_memory(tmp_path)


def test_a_full_disk_is_a_clear_error_and_keeps_the_old_memory(video, monkeypatch):
    path = save(memory_of(video))
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write the memory of .*No space left on device; make room") as caught:
        save_memory(memory_of(video, events=5), path)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert list(path.parent.glob(".*")) == []


def test_a_file_size_limit_hit_for_real_leaves_nothing_behind(video):
    """The kernel refuses the write in the middle, as on a full disk."""
    memory, soft = memory_of(video), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, soft[1]))
    try:
        with pytest.raises(OSError, match="cannot write the memory"):
            save(memory)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    assert {path.name for path in video.parent.iterdir() if path.is_file()} == {video.name}


WRITE_FOREVER = """
import sys, numpy as np
from pathlib import Path
from marc.memory.store import load_memory, save_memory
path = Path(sys.argv[1])
memory = load_memory(path)
print("started", flush=True)
while True:
    save_memory(memory, path)
"""


def test_kill_9_in_mid_write_leaves_a_whole_memory(video):
    path = save(memory_of(video, events=2000))
    for delay in (0.0, 0.02):
        with subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, str(path)], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(delay)
            process.kill()
        assert len(load_memory(path).events) == 2000


def test_leftovers_of_killed_writers_are_cleared_after_a_while(video):
    old, young = video.with_name(".a.marc-tmp"), video.with_name(".b.marc-tmp")
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    save(memory_of(video))
    assert (old.exists(), young.exists()) == (False, True)


def test_content_keys_are_cached_until_the_file_changes(video, monkeypatch):
    monkeypatch.setattr(store, "_SETTLED_SECONDS", -1.0)
    first = content_key(video)
    opened = []
    real_open = open
    monkeypatch.setattr("builtins.open", lambda *args, **kwargs: opened.append(args[0]) or real_open(*args, **kwargs))
    assert content_key(video) == first
    assert video not in opened
    status = video.stat()
    video.write_bytes(video.read_bytes()[::-1])
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert content_key(video) != first


def test_a_cache_that_cannot_be_written_or_read_is_done_without(video, monkeypatch, tmp_path):
    monkeypatch.setattr(store, "_SETTLED_SECONDS", -1.0)
    (tmp_path / "blocked").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "blocked"))
    assert content_key(video) == content_key(video)


def test_a_missing_video_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing\.mp4: no such file"):
        content_key(tmp_path / "nothing.mp4")


@pytest.mark.parametrize("name", ["a\0b.marc", "half\ud800.marc", "x" * 5000, "gone.marc", "."])
def test_a_name_that_no_memory_has_is_a_documented_error(name):
    with pytest.raises(DamagedMemoryError):
        load_memory(name)
