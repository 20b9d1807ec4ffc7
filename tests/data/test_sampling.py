import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marc.data.rows import TrainingRow, read_rows
from marc.data.sampling import sample_rows, stratum, write_manifest


def rows_of(counts: dict[tuple[str, str], int]) -> list[TrainingRow]:
    return [
        TrainingRow(f"{kind}-{source}-{index}", "why?", kind, "x", "video", f"{source}/{index}.mp4", (), source)
        for (kind, source), count in counts.items()
        for index in range(count)
    ]


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=4), part=st.floats(0.05, 1), seed=st.integers(0, 2**31)
)
def test_every_stratum_gets_its_share(counts, part, seed):
    names = [("free-form", "a"), ("free-form", "b"), ("OCR", "a"), ("numerical", "c")]
    rows = rows_of(dict(zip(names, counts, strict=False)))
    n = max(1, int(part * len(rows)))
    drawn = sample_rows(rows, n, seed)
    assert len(drawn) == n == len(set(drawn))
    assert drawn == sorted(drawn, key=rows.index) == sample_rows(rows, n, seed)
    taken = Counter(map(stratum, drawn))
    for name, count in Counter(map(stratum, rows)).items():
        assert abs(taken[name] - n * count / len(rows)) < 1


def test_another_seed_is_another_sample():
    rows = rows_of({("free-form", "a"): 100})
    assert sample_rows(rows, 10, 0) != sample_rows(rows, 10, 1)


def test_more_than_there_is():
    with pytest.raises(ValueError, match="cannot sample 3 of 2"):
        sample_rows(rows_of({("OCR", "a"): 2}), 3, 0)


def test_manifest(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.mp4").write_bytes(b"abc")
    rows = [*rows_of({("OCR", "a"): 2}), TrainingRow("t", "1+1?", "numerical", "2", "text")]
    head = write_manifest(tmp_path / "manifest.json", lambda: iter(rows), tmp_path, seed=3)
    values = json.loads((tmp_path / "manifest.json").read_text())
    assert {**head, "rows": [row.to_dict() for row in rows]} == values
    assert read_rows(tmp_path / "manifest.json") == rows
    assert values["seed"] == 3
    sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert values["files"] == [
        {"path": "a/0.mp4", "rows": ["OCR-a-0"], "bytes": 3, "sha256": sha},
        {"path": "a/1.mp4", "rows": ["OCR-a-1"], "bytes": None, "sha256": None},
    ]
    assert values["strata"] == {"text / numerical / ": 1, "video / OCR / a": 2}
