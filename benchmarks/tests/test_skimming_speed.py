from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import skimming_speed
from benchmarks.filmed_contents import CONTENTS, FPS, frames_of
from benchmarks.skimming_speed import main, write_encodings
from marc.video import probe


@pytest.mark.parametrize("content", CONTENTS)
def test_contents_are_drawn_the_same_again_and_do_what_they_say(content: str):
    first, again = (list(frames_of(content, 128, 72, 2)) for _ in range(2))
    assert {frame.shape for frame in first} == {(72, 128, 3)}
    assert len(first) == 2 * FPS
    assert np.array_equal(first, again)
    moved = np.abs(first[0].astype(int) - first[-1]).mean()
    assert (moved > 10) == (content == "walk")
    with pytest.raises(ValueError, match="unknown content"):
        frames_of("films", 128, 72, 2)


def test_videos_are_written_once_and_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(skimming_speed.SIZES, "tiny", (128, 72))
    (path,) = write_encodings(tmp_path, "walk", "tiny", ["x264-25"], 2, 3)
    assert probe(path).duration == pytest.approx(6, abs=0.1)
    written = path.stat().st_mtime_ns
    assert write_encodings(tmp_path, "walk", "tiny", ["x264-25"], 2, 3) == [path]
    assert path.stat().st_mtime_ns == written


def test_the_table_compares_checkouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(skimming_speed.SIZES, "tiny", (128, 72))
    found = {tmp_path: {"decoding": 6.0, "all": 8.0, "cuts": [1.0, 2.0]}}
    own = {"decoding": 1.0, "all": 2.0, "cuts": [1.0]}
    monkeypatch.setattr(skimming_speed, "measure", lambda checkout, videos: [found.get(checkout, own)] * len(videos))
    main("tiny", ["edited"], ["x264-25"], tmp_path, 1, 60, tmp_path)
    assert "| x264-25 | 1.00 | 2.00 | 6.00 | 8.00 | 0.25 | 1 | 2 |" in capsys.readouterr().out
