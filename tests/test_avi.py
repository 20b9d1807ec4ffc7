"""An AVI file's index decides which picture is shown when, so a damaged one is not believed."""

import os
from random import Random

import numpy as np
import pytest
from make_videos import frame_number, numbered_frames, write_video

from marc.video import avi, probe, read_frames, stream_frames

FRAMES = 30
TIMES = (np.arange(0, FRAMES, 7) + 0.5) / 30


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("avi") / "clip.avi"
    write_video(path, numbered_frames(FRAMES), codec="mpeg4", options={"g": "6"})
    return path.read_bytes()


def is_right(path) -> bool:
    seen = [frame_number(picture) for picture in read_frames(path, TIMES).rgb]
    streamed = [frame_number(each) for part in stream_frames(path, width=168, height=112) for each in part.rgb]
    return seen == list(range(0, FRAMES, 7)) and streamed == list(range(FRAMES))


@pytest.mark.parametrize("field", ["name", "offset", "size"])
@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_index_gives_no_wrong_picture(field, seed, whole, tmp_path):
    chance, damaged = Random(seed), bytearray(whole)
    start = whole.rindex(b"idx1") + 8
    for _ in range(3):
        entry = start + 16 * chance.randrange(FRAMES)
        damaged[entry + {"name": 1, "offset": 8, "size": 12}[field] + chance.randrange(2)] ^= 1 << chance.randrange(7)
    path = tmp_path / "clip.avi"
    path.write_bytes(damaged)
    assert not avi.has_true_index(str(path), 0, FRAMES)
    assert is_right(path)
    assert probe(path).frame_count == FRAMES


def test_a_picture_that_only_the_index_calls_a_key_picture_is_none(whole, tmp_path):
    """Decoding from there would give what no picture looks like."""
    damaged, start = bytearray(whole), whole.rindex(b"idx1") + 8
    for entry in range(start, start + 16 * FRAMES, 16):
        damaged[entry + 4] |= 0x10
    path = tmp_path / "clip.avi"
    path.write_bytes(damaged)
    assert avi.has_true_index(str(path), 0, FRAMES)
    assert is_right(path)
    for number in range(1, FRAMES):
        (picture,) = read_frames(path, [(number + 0.5) / 30]).rgb
        assert frame_number(picture) == number


def test_an_index_without_a_gap_is_believed_without_looking_at_every_chunk(whole, tmp_path, monkeypatch):
    path = tmp_path / "clip.avi"
    path.write_bytes(whole)
    monkeypatch.setattr(avi, "_names_all", lambda *arguments: pytest.fail("was compared"))
    assert avi.has_true_index(str(path), 0, FRAMES)
    assert is_right(path)


def test_an_index_with_gaps_is_compared_with_the_chunks(whole, tmp_path):
    """Filling between two chunks: the index is right, but not in one piece."""
    filling = b"JUNK" + (8).to_bytes(4, "little") + bytes(8)
    movi, start = whole.index(b"movi"), whole.rindex(b"idx1")
    first = movi + 4 + 8 + int.from_bytes(whole[movi + 8 : movi + 12], "little")
    first += first % 2
    index = bytearray(whole[start:])
    for entry in range(8 + 16, len(index), 16):
        offset = int.from_bytes(index[entry + 8 : entry + 12], "little")
        index[entry + 8 : entry + 12] = (offset + len(filling)).to_bytes(4, "little")
    made = bytearray(whole[:first] + filling + whole[first:start] + index)
    size = int.from_bytes(made[movi - 4 : movi], "little") + len(filling)
    made[movi - 4 : movi] = size.to_bytes(4, "little")
    path = tmp_path / "clip.avi"
    path.write_bytes(made)
    assert avi.has_true_index(str(path), 0, FRAMES)
    assert is_right(path)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\x10\0\0\0AVI LIST\xff\xff\xff\xffmovi" + bytes(9)])
def test_a_file_without_an_index_has_no_wrong_one(content, tmp_path):
    (tmp_path / "clip.avi").write_bytes(content)
    assert avi.has_true_index(str(tmp_path / "clip.avi"), 0, 3)
    os.truncate(tmp_path / "clip.avi", 0)
    assert avi.has_true_index(str(tmp_path / "clip.avi"), 0, 3)
