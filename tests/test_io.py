import errno
import hashlib
import json
import os
import resource
import subprocess
import sys
import time

import pytest
import torch

from marc import io
from marc.io import (
    append_bytes,
    append_line,
    cut_off,
    drop_torn_line,
    make_durable,
    make_folders,
    message_of,
    open_as_usual,
    put_in_place,
    replacing,
    sha256_file,
    sha256_json,
    sha256_of,
    sha256_tensors,
    size_below,
    whole_lines,
    write_atomically,
    write_bytes,
    write_json,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.yaml"), "a.yaml: No such file or directory"),
        (OSError(errno.EXDEV, "Invalid link", "a", None, b"b"), "a -> b: Invalid link"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EBADF, "Bad file descriptor", 7), "Bad file descriptor"),
        (OSError("the hub is away"), "the hub is away"),
        (ValueError("too long"), "too long"),
    ],
)
def test_an_error_names_the_file_and_then_the_cause(error, message):
    assert message_of(error) == message


def test_what_is_written_is_read(tmp_path):
    write_bytes(tmp_path / "deep" / "down" / "a.bin", b"\0\1")
    write_text(tmp_path / "b.txt", "日本\n")
    write_json(tmp_path / "c.json", {"b": ["é"], "a": None})
    assert (tmp_path / "deep" / "down" / "a.bin").read_bytes() == b"\0\1"
    assert (tmp_path / "b.txt").read_text(encoding="utf-8") == "日本\n"
    assert (tmp_path / "c.json").read_text(encoding="utf-8") == '{\n "b": [\n  "é"\n ],\n "a": null\n}\n'
    assert names(tmp_path) == ["b.txt", "c.json", "deep"]


def test_json_holds_whatever_a_model_or_a_file_name_says(tmp_path):
    write_json(tmp_path / "a.json", ["\ud800", "\\ud800"])
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == ["\ud800", "\\ud800"]


def test_a_value_that_is_no_json_leaves_the_file_as_it_was(tmp_path):
    write_json(tmp_path / "a.json", [1])
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", [1, object()])
    assert json.loads((tmp_path / "a.json").read_text()) == [1]
    assert names(tmp_path) == ["a.json"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    write_bytes(path, b"old")

    def half(file):
        file.write(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, half)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_nobody_sees_a_part(tmp_path):
    path = tmp_path / "a"
    write_bytes(path, b"old")

    def watched(file):
        file.write(b"n" * 100_000)
        file.flush()
        assert path.read_bytes() == b"old"

    write_atomically(path, watched)
    assert path.read_bytes() == b"n" * 100_000


def test_a_file_that_is_filled_by_its_name_keeps_its_extension(tmp_path):
    with replacing(tmp_path / "film.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"film")
    assert (tmp_path / "film.mp4").read_bytes() == b"film"
    assert names(tmp_path) == ["film.mp4"]


@pytest.fixture
def narrow_umask():
    """Others may do nothing with new files, the group may read them."""
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.parametrize("own", [0o600, 0o644])
def test_what_a_library_made_for_its_owner_alone_is_as_open_as_any_new_file(tmp_path, narrow_umask, own):
    """What others may use already is left as it was made."""
    with replacing(tmp_path / "a") as temporary:
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY))
        temporary.chmod(own)
    (tmp_path / "filled").touch()
    (tmp_path / "filled").chmod(own)
    put_in_place(tmp_path / "filled", tmp_path / "b")
    (tmp_path / "c").touch()
    (tmp_path / "c").chmod(own)
    open_as_usual(tmp_path / "c")
    wanted = 0o640 if own == 0o600 else own
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == dict.fromkeys("abc", wanted)


def test_files_that_are_private_by_the_umask_stay_so(tmp_path):
    before = os.umask(0o077)
    try:
        write_text(tmp_path / "a", "mine")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600 and names(tmp_path) == ["a"]


def test_file_and_folder_are_flushed_to_the_disk_before_and_after_the_file_appears(tmp_path, monkeypatch):
    steps = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(io.os, "fsync", lambda file: steps.append(os.readlink(f"/proc/self/fd/{file}")) or sync(file))
    monkeypatch.setattr(io.os, "replace", lambda *paths: steps.append("replace") or replace(*paths))
    write_text(tmp_path / "a", "text")
    assert steps[0].endswith(".marc-tmp")
    assert steps[1:] == ["replace", str(tmp_path)]


@pytest.fixture
def synchronised(monkeypatch):
    """Paths in the order in which they are flushed to the disk."""
    steps, sync = [], os.fsync
    monkeypatch.setattr(io.os, "fsync", lambda file: steps.append(os.readlink(f"/proc/self/fd/{file}")) or sync(file))
    return steps


def test_folders_that_are_made_are_flushed_into_those_above_them(tmp_path, synchronised):
    make_folders(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert set(synchronised) == {str(tmp_path), str(tmp_path / "a")}
    synchronised.clear()
    make_folders(tmp_path / "a" / "b")
    assert synchronised == []
    write_text(tmp_path / "a" / "file", "")
    with pytest.raises(FileExistsError):
        make_folders(tmp_path / "a" / "file")


def test_a_line_is_on_the_disk_when_it_was_appended_and_so_is_the_name_of_its_file(tmp_path, synchronised):
    append_line(tmp_path / "a", "one")
    assert synchronised == [str(tmp_path / "a"), str(tmp_path)]
    append_line(tmp_path / "a", "two")
    assert synchronised[2:] == [str(tmp_path / "a")]
    assert whole_lines(tmp_path / "a") == [b"one", b"two"]


@pytest.mark.parametrize("torn", [b"", b"tw", b"\0\0\0", b"t\0o\n", b"\0\n", b"two\0\n"])
def test_a_last_line_that_is_cut_off_or_has_zeros_is_none(tmp_path, torn):
    append_line(tmp_path / "a", "one")
    with (tmp_path / "a").open("ab") as file:
        file.write(torn)
    assert whole_lines(tmp_path / "a") == [b"one"]
    drop_torn_line(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"one\n"
    append_line(tmp_path / "a", "two")
    assert whole_lines(tmp_path / "a") == [b"one", b"two"]


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(io.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_file_size_limit_hit_for_real_leaves_nothing_behind(tmp_path):
    """The kernel refuses the write in the middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_bytes(tmp_path / "a", b"x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []


WRITE_FOREVER = """
import sys
from marc.io import write_bytes
print("started", flush=True)
while True:
    write_bytes(sys.argv[1], b"x" * 1_000_000)
"""


def test_kill_9_in_mid_write_leaves_a_whole_file(tmp_path):
    path = tmp_path / "a"
    write_bytes(path, b"x" * 1_000_000)
    for delay in (0.0, 0.01, 0.02):
        with subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, str(path)], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(delay)
            process.kill()
        assert path.read_bytes() == b"x" * 1_000_000


def test_leftovers_of_killed_writers_are_cleared_after_a_while(tmp_path):
    old, young, other = tmp_path / ".a.marc-tmp", tmp_path / ".b.marc-tmp.mp4", tmp_path / ".hidden"
    for path in (old, young, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, 0))
    write_text(tmp_path / "a", "")
    assert names(tmp_path) == [".b.marc-tmp.mp4", ".hidden", "a"]


@pytest.mark.parametrize("by", [make_durable, size_below])
def test_what_another_process_renames_meanwhile_stops_nobody(by, tmp_path, monkeypatch):
    """As safetensors does in a checkpoint's folder while another process saves its own part."""
    walk = os.walk
    (tmp_path / "a" / "deep").mkdir(parents=True)
    for path in (tmp_path / "a" / "deep" / "one", tmp_path / "a" / "two"):
        path.write_bytes(b"12345")

    def racing(folder):
        for parent, folders, files in walk(folder):
            yield parent, [*folders, "gone"], [*files, ".tmp"]

    monkeypatch.setattr(io.os, "walk", racing)
    assert by(tmp_path / "a") == {make_durable: None, size_below: 10}[by]


def test_a_folder_is_made_durable_whole(tmp_path, synchronised):
    write = tmp_path / "a" / "deep" / "one"
    write.parent.mkdir(parents=True)
    write.touch()
    make_durable(tmp_path / "a")
    assert set(synchronised) == {str(each) for each in (write, write.parent, tmp_path / "a", tmp_path)}
    with pytest.raises(FileNotFoundError):
        make_durable(tmp_path / "b")


def test_hashes_are_those_of_the_bytes(tmp_path):
    content = b"marc" * 1_000_000
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    assert sha256_of("é", b"\0") == hashlib.sha256("é".encode() + b"\0").hexdigest()
    assert sha256_json({"b": 1, "a": ["é"]}) == hashlib.sha256(b'{"a": ["\\u00e9"], "b": 1}').hexdigest()


def test_a_hash_of_tensors_changes_with_name_shape_type_and_value():
    def digest(name="w", value=torch.arange(4.0)):
        return sha256_tensors({name: value})

    different = [
        digest(),
        digest(name="v"),
        digest(value=torch.arange(4.0).reshape(2, 2)),
        digest(value=torch.arange(4.0).view(torch.int32)),
        digest(value=torch.arange(4.0) + torch.tensor([0, 0, 0, 1e-6])),
        digest(value=torch.arange(4.0).to(torch.bfloat16)),
    ]
    assert len(set(different)) == len(different)
    assert digest(value=torch.arange(8.0)[::2] / 2) == digest()


def test_bytes_are_added_and_an_end_is_cut_off(tmp_path):
    path = tmp_path / "log"
    append_bytes(path, b"one")
    append_bytes(path, b"two")
    assert path.read_bytes() == b"onetwo"
    cut_off(path, 4)
    assert path.read_bytes() == b"onet"
    append_bytes(path, b"!")
    assert path.read_bytes() == b"onet!"
    with pytest.raises(OSError, match="nowhere"):
        cut_off(tmp_path / "nowhere", 0)
