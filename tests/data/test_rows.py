import json

import pytest

from marc.data.rows import load_rows, parse_row, parse_rows, read_rows

PUBLISHED = {
    "problem_id": 2,
    "problem": "What appears on the screen?",
    "data_type": "video",
    "problem_type": "multiple choice",
    "options": ["A. a cat", "B. a dog"],
    "solution": "<answer>A</answer>",
    "path": "./LLaVA-Video-178K/clip.mp4",
    "data_source": "LLaVA-Video-178K/0_30_s_youtube_v0_1",
}


def test_a_published_row():
    row = parse_row(PUBLISHED)
    assert (row.problem_id, row.options, row.process) == ("2", ("A. a cat", "B. a dog"), None)
    assert str(row.file("/data")) == "/data/LLaVA-Video-178K/clip.mp4"


def test_a_row_with_reasoning_survives_json():
    row = parse_row({**PUBLISHED, "process": "<think>it meows</think>", "a_full": 0.5, "cuts": [1.0, 2.5]})
    assert parse_row(json.loads(json.dumps(row.to_dict()))) == row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem": None}, "'problem'"),
        ({"solution": ""}, "solution is empty"),
        ({"problem_type": "essay"}, "problem_type"),
        ({"data_type": "audio"}, "data_type"),
        ({"path": None}, "has no path"),
        ({"data_type": "text"}, "must not have a path"),
        ({"options": "A"}, "'options'"),
        ({"options": 3}, "'options'"),
        ({"cuts": 5}, "'cuts'"),
        ({"cuts": [None]}, "'cuts'"),
        ({"a_full": 1.5}, "a_full"),
        ({"a_full": "high"}, "'a_full'"),
        ({"cuts": [2.0, 1.0]}, "cuts"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        parse_row({**PUBLISHED, **change})


def test_bad_rows_come_back_with_their_place_and_id():
    rows, bad = parse_rows([PUBLISHED, "text", {**PUBLISHED, "problem_id": 7, "solution": " "}])
    assert len(rows) == 1
    assert [str(row) for row in bad] == [
        "row 1 (problem_id ?): a row must be an object, got str",
        "row 2 (problem_id 7): the solution is empty",
    ]


def test_files(tmp_path):
    (tmp_path / "list.json").write_text(json.dumps([PUBLISHED]))
    (tmp_path / "manifest.json").write_text(json.dumps({"rows": [PUBLISHED]}))
    (tmp_path / "lines.jsonl").write_text(json.dumps(PUBLISHED) + "\n\n")
    rows = [read_rows(tmp_path / name) for name in ("list.json", "manifest.json", "lines.jsonl")]
    assert rows[0] == rows[1] == rows[2] == [parse_row(PUBLISHED)]


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        load_rows(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("[{")
    with pytest.raises(ValueError, match="not valid JSON"):
        load_rows(tmp_path / "broken.json")
    (tmp_path / "other.json").write_text("3")
    with pytest.raises(ValueError, match="list of rows"):
        load_rows(tmp_path / "other.json")
    (tmp_path / "bad.json").write_text(json.dumps([{**PUBLISHED, "problem": ""}] * 8))
    with pytest.raises(ValueError, match=r"8 unusable rows.*and 3 more"):
        read_rows(tmp_path / "bad.json")
