import json
import tracemalloc

import pytest

from marc.data import row_files
from marc.data.row_files import UnreadableRow, load_rows, raw_rows
from marc.data.rows import parse_row, parse_rows, read_rows

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
        ({"cuts": [1.0, float("inf")]}, "'cuts'"),
        ({"cuts": [10**400]}, "'cuts'"),
        ({"a_full": 10**400}, "'a_full'"),
        ({"a_full": float("nan")}, "'a_full'"),
        ({"process": 5}, "'process'"),
        ({"data_type": ["video"]}, "'data_type'"),
        ({"data_source": {"a": 1}}, "'data_source'"),
        ({"problem_id": [1]}, "'problem_id'"),
        ({"problem": "which \ud800?"}, "'problem' holds half a character"),
        ({"options": ["A. \udfff"]}, "'options' holds half a character"),
        ({"path": "a\0.mp4"}, "'path' holds what no file name has"),
        ({"path": "a\ud800.mp4"}, "'path' holds what no file name has"),
        ({"path": ["a.mp4"]}, "'path'"),
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


def test_a_name_that_is_not_utf_8_may_be_a_files():
    assert parse_row({**PUBLISHED, "path": "caf\udce9.mp4"}).path == "caf\udce9.mp4"


def test_a_message_does_not_repeat_a_megabyte():
    _, (bad,) = parse_rows([{**PUBLISHED, "options": "A" * 1_000_000, "problem_id": "9" * 1_000_000}])
    assert len(str(bad)) < 500


@pytest.mark.parametrize("path", ["../secret.mp4", "a/../../b.mp4", "a/../b.mp4", "/etc/passwd", "{root}x/a.mp4"])
def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path, path):
    root = tmp_path / "data"
    values = {**PUBLISHED, "path": path.replace("{root}", str(root))}
    (row,), bad = parse_rows([values])
    assert row.path == values["path"] and not bad
    rows, (bad,) = parse_rows([values], root)
    assert not rows
    assert "leads out of the data set's folder" in bad.problem and "--allow-outside" in bad.problem


def test_paths_in_the_folder_are_read_also_through_links(tmp_path):
    root, elsewhere = tmp_path / "data", tmp_path / "disk"
    elsewhere.mkdir()
    root.symlink_to(elsewhere)
    paths = ["a.mp4", "./deep/a.mp4", "..a/b..mp4", f"{root}/a.mp4", f"{elsewhere}/a.mp4", ""]
    rows, bad = parse_rows(
        [{**PUBLISHED, "path": path or None, "data_type": "video" if path else "text"} for path in paths], root
    )
    assert len(rows) == len(paths) and not bad


def test_reading_a_file_refuses_what_leads_out_of_its_folder(tmp_path):
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([{**PUBLISHED, "path": "/videos/a.mp4"}]))
    with pytest.raises(ValueError, match="leads out"):
        read_rows(file)
    assert read_rows(file, "/videos") == read_rows(file, allow_outside=True)


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


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"[{}, " + DEEP.encode(), "row 1: nested too deeply"),
        ("a.json", b'{"rows": ' + DEEP.encode(), "nested too deeply"),
        ("a.json", b'[{"a": 1} {"b": 2}]', "row 1: not valid JSON"),
        ("a.json", b'[{"a": 1}] 5', "something follows"),
        ("a.json", b'[{"a": 1}', "row 1: not valid JSON"),
        ("a.json", b"[1, 2,]", "row 2: not valid JSON"),
        ("a.json", b"[" + b"9" * 5000 + b"]", "row 0"),
        ("a.json", b'["\xff"]', "not UTF-8"),
        ("a.json", b'{"rows": "\xff"}', "not UTF-8"),
        ("a.json", b'{"rows": 5}', "manifest with 'rows'"),
        ("a.json", b"", "expected a list of rows"),
        ("a.jsonl", b'{}\n{"a": \n{}\n', "line 2: not valid JSON"),
        ("a.jsonl", b"\xff\n", "line 1: not UTF-8"),
        ("a.jsonl", DEEP.encode(), "line 1: nested too deeply"),
        ("a.parquet", b"PAR1 and no more PAR1", "not a parquet file"),
    ],
)
def test_whatever_is_in_a_file_is_an_error_that_names_it(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_rows(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_a_line_that_is_no_json_is_one_bad_row(tmp_path):
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(PUBLISHED)}\n{DEEP}\n\n{{\n{json.dumps(PUBLISHED)}\n")
    values = list(raw_rows(tmp_path / "a.jsonl"))
    assert [type(value) for value in values] == [dict, UnreadableRow, UnreadableRow, dict]
    rows, bad = parse_rows(values)
    assert len(rows) == 2
    assert [str(row) for row in bad] == [
        "row 1 (problem_id ?): line 2: nested too deeply to be read",
        "row 2 (problem_id ?): line 4: not valid JSON (Expecting property name enclosed in double quotes: "
        "line 2 column 1 (char 2))",
    ]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64])
def test_a_list_is_read_alike_wherever_its_blocks_end(tmp_path, monkeypatch, block):
    values = [{"text": '[1, 2]"}\u00e9é', "list": [1, {}]}, 12, -3.25e10, "x", None, True, [], {**PUBLISHED}, 123456]
    file = tmp_path / "a.json"
    file.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    monkeypatch.setattr(row_files, "_BLOCK", block)
    assert list(raw_rows(file)) == values
    file.write_text(" [ ] ")
    assert list(raw_rows(file)) == []


def test_no_more_of_a_file_is_in_memory_than_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(row_files, "_BLOCK", 1000)
    row = json.dumps(PUBLISHED)
    for name, text in (("a.json", f"[{', '.join([row] * 5000)}]"), ("a.jsonl", f"{row}\n" * 5000)):
        (tmp_path / name).write_text(text)
        tracemalloc.start()
        count = sum(1 for _ in raw_rows(tmp_path / name))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (count, peak < len(text) / 5) == (5000, True), f"{name}: {peak} of {len(text)} bytes"
