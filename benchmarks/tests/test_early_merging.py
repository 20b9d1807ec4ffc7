"""The table of merging inside the tower: what is counted, and against what."""

import pytest

from benchmarks.early_merging import main


def test_a_row_for_each_model_and_place(capsys: pytest.CaptureFixture[str]) -> None:
    main(["tiny", "--place", "none", "--place", "1", "--videos", "2"])
    first, second = (line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:])
    assert first[:2] == ["| tiny", "none"] and first[3:5] == ["+0.0 [+0.0, +0.0]", "1.0x"]
    assert second[1] == "1" and float(second[2]) <= float(first[2])
    assert 1.5 < float(second[4].removesuffix("x")) < 2, "one of two blocks reads every grid, the other a few"
    assert float(second[5].removesuffix("x |")) > float(first[5].removesuffix("x |")) > 1, (
        "four tokens are read, not 128"
    )


def test_other_places_are_refused() -> None:
    with pytest.raises(ValueError, match="tower_layers: a place"):
        main(["tiny", "--place", "half"])
