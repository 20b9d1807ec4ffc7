from __future__ import annotations

from pathlib import Path

import pytest
import typer

from benchmarks import skimming_boundaries
from benchmarks.skimming_boundaries import FURTHER, encoded, main
from benchmarks.skimming_speed import ENCODERS
from benchmarks.synthetic_cuts import make_video
from marc.video import probe


def test_every_encoder_writes_all_pictures(tmp_path: Path):
    video = make_video("hard", 0, shots=2)
    for name in ("x264-open", "vp9", "x265-closed"):
        ((path, written),) = encoded(tmp_path, [video], name)
        assert (written.transitions, len(written.rgb)) == (video.transitions, 0)
        assert probe(path).frame_count == len(video.rgb)
    assert not set(ENCODERS) & set(FURTHER)


def test_both_ways_stand_beside_each_other(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    short = {kind: make_video(kind, 0, shots=2) for kind in ("hard", "flash")}
    monkeypatch.setattr(skimming_boundaries, "make_video", lambda kind, seed: short[kind])
    main(1, 0, ["x264-250"], ["hard", "flash"])
    assert "| x264-250 | 1.000 / 1.000 | 0 false / 0 false |" in capsys.readouterr().out
    with pytest.raises(typer.BadParameter, match="unknown: 'h263'"):
        main(1, 0, ["h263"], None)
