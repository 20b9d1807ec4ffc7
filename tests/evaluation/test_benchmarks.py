import json
from pathlib import Path

import pytest

from marc.data.prompts import render_question
from marc.evaluation.benchmarks import (
    BENCHMARKS,
    _default_world_rows,
    find_benchmark,
)
from marc.evaluation.official import score_official
from marc.evaluation.reading import MediaIndex, annotation_files, load_samples

VSI = BENCHMARKS["vsi"]


def test_video_r1_files_are_read_as_they_are(write_rows, tmp_path):
    write_rows(
        {}, {"problem": "How many?", "problem_type": "regression", "options": [], "solution": "<answer>4</answer>"}
    )
    first, second = load_samples(VSI, protocol="video-r1", data=tmp_path)
    assert first.id == "vsi/000000" and second.id == "vsi/000001"
    assert first.path == str(tmp_path / "clips" / "a.mp4")
    assert first.prompt == render_question("What moves?", problem_type="multiple choice", options=first.options)
    assert first.prompt.startswith("What moves?Options:\nA. a cat\nB. a dog\n\nPlease think")
    assert second.problem_type == "regression" and second.groups == {"type": "regression"}


def test_paths_are_found_inside_an_evaluation_folder(write_rows, tmp_path):
    clip = tmp_path / "Evaluation" / "clips" / "a.mp4"
    clip.parent.mkdir(parents=True)
    clip.touch()
    write_rows({})
    assert load_samples(VSI, protocol="video-r1", data=tmp_path)[0].path == str(clip)


def test_ones_own_file_is_a_benchmark(write_rows, tmp_path):
    file = write_rows({}, name="eval_mine.json")
    benchmark = find_benchmark(str(file))
    assert benchmark.name == "mine"
    assert load_samples(benchmark, protocol="video-r1", data=tmp_path)[0].id == "mine/000000"


def test_a_benchmarks_own_file_is_that_benchmark(write_rows):
    benchmark = find_benchmark(str(write_rows({})))
    assert benchmark.name == "vsi" and benchmark.spec("video-r1").headline == "accuracy+mra"


@pytest.mark.parametrize("name", ["world.json", "vsi.json", "VideoMME.json", "eval_MMVU.jsonl", "micro-world.json"])
def test_ones_own_file_is_never_called_as_a_known_benchmark(write_rows, tmp_path, name):
    benchmark = find_benchmark(str(write_rows({}, name=name, folder=tmp_path / "mine")))
    stem = name.removeprefix("eval_").partition(".")[0]
    assert benchmark.name == benchmark.title == f"mine-{stem}" and list(benchmark.protocols) == ["video-r1"]


def test_the_micro_world_counts_the_same_words(write_rows, tmp_path):
    row = {"problem_type": "free-form", "solution": "<answer>red</answer>", "question_type": "colour", "events": "2"}
    file = write_rows({**row, "data_source": "marc-world-hard"}, name="eval_world.json")
    (sample,) = load_samples(find_benchmark(str(file)), protocol="official", data=tmp_path)
    assert sample.prompt == render_question("What moves?", problem_type="free-form", style="video-r1")
    assert sample.groups.items() >= {"type": "free-form", "question_type": "colour", "events": "2"}.items()
    assert score_official("<think>blue?</think><answer>Red</answer>", sample) == 1.0
    assert score_official("<answer>red or blue</answer>", sample) == 0.0


def test_another_export_of_the_micro_world_is_a_benchmark_of_its_own(write_rows, tmp_path, monkeypatch):
    """Called after its folder, wherever it is asked from, and scored as the micro-world is."""
    file = write_rows({"data_source": "marc-world-hard"}, name="eval_world.json", folder=tmp_path / "h")
    monkeypatch.chdir(file.parent)
    for path in (str(file), file.name):
        benchmark = find_benchmark(path)
        assert (benchmark.name, benchmark.title) == ("h-world", "Micro-world (h)")
        assert benchmark.spec("official").rules == BENCHMARKS["world"].spec("official").rules
    (sample,) = load_samples(benchmark, protocol="official", data=tmp_path)
    assert sample.path == str(tmp_path / "h" / "clips" / "a.mp4")


def test_what_is_exported_by_default_is_the_micro_world_wherever_it_lies(write_rows, tmp_path):
    rows = list(_default_world_rows())
    for changed, name in ((False, "world"), (True, "h-world")):
        file = write_rows(*rows[changed:], name="eval_world.json", folder=tmp_path / "h")
        benchmark = find_benchmark(str(file))
        assert benchmark.name == name
        assert len(load_samples(benchmark, protocol="official", data=tmp_path)) == 2000 - changed


def test_what_only_has_the_name_of_the_micro_worlds_file_is_ones_own(write_rows, tmp_path):
    benchmark = find_benchmark(str(write_rows({}, name="eval_world.json", folder=tmp_path / "earth")))
    assert benchmark.name == benchmark.title == "earth-world" and list(benchmark.protocols) == ["video-r1"]


def test_a_missing_file_is_named(tmp_path):
    benchmark = find_benchmark(str(tmp_path / "h" / "eval_world.json"))
    with pytest.raises(ValueError, match=r"no .*/h/eval_world\.json"):
        load_samples(benchmark, protocol="video-r1", data=tmp_path)


def test_a_limit_is_spread_over_the_benchmark(write_rows, tmp_path):
    write_rows(*({"problem": str(i)} for i in range(10)))
    kept = load_samples(VSI, protocol="video-r1", data=tmp_path, limit=3)
    assert [sample.id for sample in kept] == ["vsi/000000", "vsi/000003", "vsi/000006"]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"solution": None}, "row 1: the row has no 'solution'"),
        ({"problem_type": "mcq"}, "row 1: unknown problem_type 'mcq'"),
        ({"path": None}, "row 1: the row has no 'path'"),
    ],
)
def test_a_bad_row_is_named(write_rows, tmp_path, row, named):
    write_rows({}, row)
    with pytest.raises(ValueError, match=named):
        load_samples(VSI, protocol="video-r1", data=tmp_path)


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1]"])
def test_a_bad_file_is_named(tmp_path, text):
    (tmp_path / "eval_vsibench.json").write_text(text)
    with pytest.raises(ValueError, match=r"eval_vsibench\.json"):
        load_samples(VSI, protocol="video-r1", data=tmp_path)


def test_missing_files_say_where_to_get_them(tmp_path):
    for benchmark in BENCHMARKS.values():
        for protocol, spec in benchmark.protocols.items():
            if spec.files:
                with pytest.raises(ValueError, match="get it from"):
                    load_samples(benchmark, protocol=protocol, data=tmp_path)


def test_unknown_names(tmp_path):
    with pytest.raises(ValueError, match="unknown benchmark 'egoschema'; choose one of world, vsi"):
        find_benchmark("egoschema")
    with pytest.raises(ValueError, match="no protocol 'vlm'"):
        load_samples(VSI, protocol="vlm", data=tmp_path)


def write_official(folder, name, rows):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        import pyarrow

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    else:
        file.write_text("\n".join(json.dumps(row) for row in rows) if file.suffix == ".jsonl" else json.dumps(rows))


def official(name, folder):
    return load_samples(BENCHMARKS[name], protocol="official", data=folder)


def test_a_folder_with_the_benchmarks_name_is_where_its_files_are(tmp_path):
    for name in ("vsi", "videomme"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "test.jsonl").write_text("{}")
    (tmp_path / "test.jsonl").write_text("{}")
    for name in ("vsi", "videomme"):
        found = annotation_files(BENCHMARKS[name], "official", tmp_path)
        assert found == [tmp_path / name / "data" / "test.jsonl"]


def test_a_folder_of_videos_hides_no_annotations(tmp_path):
    (tmp_path / "mvbench").mkdir()
    (tmp_path / "eval_mvbench.json").write_text("[]")
    assert annotation_files(BENCHMARKS["mvbench"], "video-r1", tmp_path) == [tmp_path / "eval_mvbench.json"]


def test_a_style_is_refused_where_prompts_are_given(tmp_path):
    (tmp_path / "test.jsonl").write_text("{}")
    with pytest.raises(ValueError, match=r"style 'plain': the official protocol of VSI"):
        load_samples(BENCHMARKS["vsi"], protocol="official", data=tmp_path, style="plain")


def test_vsi_official(tmp_path):
    common = {"dataset": "scannet", "scene_name": "scene1", "question": "Q?"}
    rows = [
        {**common, "question_type": "object_counting", "ground_truth": "4", "options": None},
        {
            **common,
            "question_type": "object_rel_direction_hard",
            "ground_truth": "B",
            "options": ["A. left", "B. right"],
        },
    ]
    import pyarrow.parquet  # noqa: F401

    write_official(tmp_path, "test-00000-of-00001.parquet", rows)
    write_official(tmp_path, "test_debiased.parquet", rows)  # another split: not read
    (tmp_path / "unpacked" / "scannet").mkdir(parents=True)
    (tmp_path / "unpacked" / "scannet" / "scene1.mp4").touch()
    number, choice = official("vsi", tmp_path)
    assert number.path.endswith("unpacked/scannet/scene1.mp4")
    assert (number.rule, number.problem_type, number.groups["task"]) == ("mra", "regression", "object_counting")
    assert (choice.rule, choice.groups["task"]) == ("first-token", "object_rel_direction")
    assert choice.prompt == (
        "These are frames of a video.\nQ?\nOptions:\nA. left\nB. right\n"
        "Answer with the option's letter from the given choices directly."
    )


def test_videommmu_official_has_three_tracks(tmp_path):
    row = {
        "id": "validation_Art_1",
        "question": "Q?",
        "options": ["x", "y"],
        "answer": "A",
        "question_type": "multiple-choice",
    }
    for track in ("Perception", "Comprehension", "Adaptation"):
        rows = [row, {**row, "question_type": "open", "answer": "42"}] if track == "Adaptation" else [row]
        write_official(tmp_path, f"{track}/test.json", rows)
    samples = official("videommmu", tmp_path)
    assert [sample.groups["track"] for sample in samples] == [
        "perception",
        "comprehension",
        "adaptation",
        "adaptation",
    ]
    assert [sample.rule for sample in samples] == ["letter", "letter", "letter", "mmmu-open"]
    assert [sample.id for sample in samples][-1] == "videommmu/000003"
    assert samples[0].prompt == "Q?\nA. x\nB. y\nPlease ignore the Quiz question in last frame of the video."


def test_mmvu_official(tmp_path):
    rows = [
        {"video": "https://h/datasets/yale-nlp/MMVU/resolve/main/videos/Art/1.mp4", "question": "Q?", "answer": "B",
         "question_type": "multiple-choice", "choices": {"A": "a", "B": "b", "C": "c", "D": "d", "E": "e"}},
        {"video": "x/videos/Art/2.mp4", "question": "Q?", "answer": "dfs", "question_type": "open-ended"},
    ]  # fmt: skip
    write_official(tmp_path, "validation.json", rows)
    choice, text = official("mmvu", tmp_path)
    assert choice.path == str(tmp_path / "Art/1.mp4") and choice.options == ("a", "b", "c", "d", "e")
    assert "A: a\nB: b\nC: c\nD: d\nE: e\n" in choice.prompt
    scores = {said: score_official(said, choice) for said in ("B", "b", "The answer is b.", "The b", "C", "c", "f")}
    assert scores == {"B": 1.0, "b": 1.0, "The answer is b.": 1.0, "The b": 0.0, "C": 0.0, "c": 0.0, "f": 0.0}
    assert (text.rule, text.groups) == ("mmvu-open", {"form": "open"})


def test_mvbench_official(tmp_path):
    row = {"video": "1.mp4", "question": "Q?", "candidates": ["red", "blue"], "answer": "blue"}
    write_official(tmp_path, "json/state_change.json", [row])
    (sample,) = official("mvbench", tmp_path)
    assert sample.solution == "B" and sample.groups == {"task": "state_change"}
    assert sample.path == str(tmp_path / "perception/videos/1.mp4")
    assert sample.prompt == "Question:Q?\nOption:\n(A) red\n(B) blue\nOnly give the best option.\n"
    write_official(tmp_path, "json/state_change.json", [{**row, "answer": "green"}])
    with pytest.raises(ValueError, match="row 0: the answer 'green' is none of the candidates"):
        official("mvbench", tmp_path)


def test_tempcompass_official_leaves_captioning_out(tmp_path):
    row = {"video_id": "7", "question": "Q?\nA. x\nB. y", "answer": "A. x", "dim": "speed"}
    for task in ("multi-choice", "yes_no", "caption_matching", "captioning"):
        write_official(tmp_path, f"{task}/test-00000-of-00001.jsonl", [row])
    samples = official("tempcompass", tmp_path)
    assert [sample.groups["task"] for sample in samples] == ["multi-choice", "yes_no", "caption_matching"]
    assert samples[0].prompt == "Q?\nA. x\nB. y\nPlease directly give the best option:"


def test_videomme_official(tmp_path):
    row = {"videoID": "abc", "question": "Q?", "options": ["A. x", "B. y"], "answer": "A", "duration": "long"}
    write_official(tmp_path, "test.jsonl", [row])
    (sample,) = official("videomme", tmp_path)
    assert sample.groups["duration"] == "long"
    assert sample.prompt.startswith("Select the best answer")
    assert sample.prompt.endswith("\nA. x\nB. y\n\nAnswer with the option's letter from the given choices directly.")


def test_media_are_found_by_the_end_of_their_path_and_never_guessed(tmp_path):
    for name in ("a/x/1.mp4", "b/x/1.mp4", "b/y/1.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    index = MediaIndex(tmp_path)
    assert index.find("y/1.mp4") == tmp_path / "b/y/1.mp4"
    assert index.find("z/1.mp4") == tmp_path / "z/1.mp4"
    with pytest.raises(ValueError, match="ambiguous"):
        index.find("x/1.mp4")


@pytest.mark.parametrize("path", ["../a.mp4", "/etc/passwd", "clips/../../a.mp4"])
def test_a_path_that_leads_out_of_the_folder_is_refused_unless_the_user_allows_it(write_rows, tmp_path, path):
    write_rows({}, {"path": path})
    with pytest.raises(ValueError, match=r"eval_vsibench\.json, row 1: the path .* leads out of .*--allow-outside"):
        load_samples(VSI, protocol="video-r1", data=tmp_path)
    assert len(load_samples(VSI, protocol="video-r1", data=tmp_path, allow_outside=True)) == 2


def test_an_absolute_path_in_the_folder_of_videos_is_none_that_leads_out(write_rows, tmp_path):
    write_rows({"path": "/somewhere/videos/a.mp4"})
    (sample,) = load_samples(VSI, protocol="video-r1", data=tmp_path, videos=Path("/somewhere/videos"))
    assert sample.path == "/somewhere/videos/a.mp4"


def test_official_annotations_stay_in_their_folder_too(tmp_path):
    row = {"videoID": "../../abc", "question": "Q?", "options": ["A. x", "B. y"], "answer": "A", "duration": "long"}
    write_official(tmp_path, "test.jsonl", [row])
    with pytest.raises(ValueError, match=r"test\.jsonl, row 0: the path '../../abc.mp4' leads out of"):
        official("videomme", tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"options": 5},
        {"options": [1]},
        {"problem": ["What?"]},
        {"problem_type": ["multiple choice"]},
        {"path": {"a": 1}},
        {"data_type": 7},
        {"problem": "half \ud800"},
        {"options": {"A": "x"}},
    ],
)
def test_a_column_of_another_type_is_named_with_its_row(write_rows, tmp_path, change):
    write_rows({}, change)
    with pytest.raises(ValueError, match=r"eval_vsibench\.json, row 1: "):
        load_samples(VSI, protocol="video-r1", data=tmp_path)


def test_a_link_that_leads_back_ends(tmp_path):
    (tmp_path / "a.mp4").touch()
    for name in ("one", "two", "three"):
        (tmp_path / name).symlink_to(tmp_path)
    assert MediaIndex(tmp_path).find("a.mp4") == tmp_path / "a.mp4"


@pytest.mark.parametrize("folder", ["beside", "beside/Evaluation"])
def test_paths_from_evaluation_are_found_beside_and_inside_that_folder(write_rows, tmp_path, folder):
    video = tmp_path / "beside/Evaluation/MMVU/videos/1.mp4"
    video.parent.mkdir(parents=True)
    video.touch()
    write_rows({"path": "./Evaluation/MMVU/videos/1.mp4"}).rename(tmp_path / folder / "eval_vsibench.json")
    (sample,) = load_samples(VSI, protocol="video-r1", data=tmp_path / folder)
    assert Path(sample.path).samefile(video)


def test_a_folder_of_frames_is_found_without_the_ending(write_rows, tmp_path):
    folder = tmp_path / "Evaluation/MVBench/tvqa/frames_fps3_hq/castle_01"
    folder.mkdir(parents=True)
    write_rows({"data_type": "frame", "path": "./MVBench/tvqa/frames_fps3_hq/castle_01.mp4"})
    (sample,) = load_samples(VSI, protocol="video-r1", data=tmp_path)
    assert sample.data_type == "frame" and Path(sample.path).with_suffix("") == folder


def test_one_address_for_each_video_is_no_group(write_rows, tmp_path):
    write_rows(*({"data_source": source} for source in ("https://youtube.com/watch?v=1", "perception_test")))
    first, second = load_samples(VSI, protocol="video-r1", data=tmp_path)
    assert "data_source" not in first.groups and second.groups["data_source"] == "perception_test"


def test_rows_of_later_sets_are_read_where_they_mean_the_same(write_rows, tmp_path):
    row = {"solution": None, "answer": "<answer>a dog</answer>", "problem_type": "open-ended"}
    write_rows(row)
    (sample,) = load_samples(VSI, protocol="video-r1", data=tmp_path)
    assert (sample.problem_type, sample.solution) == ("free-form", "<answer>a dog</answer>")
    write_rows({**row, "problem_type": "segmentation"})
    with pytest.raises(ValueError, match="unknown problem_type 'segmentation'"):
        load_samples(VSI, protocol="video-r1", data=tmp_path)


@pytest.mark.parametrize("question_type", ["None", None, "open"])
def test_in_adaptation_what_is_no_choice_is_open(tmp_path, question_type):
    row = {"id": "a_1", "question": "Q?", "options": [], "answer": "4", "question_type": question_type}
    choice = {key: value for key, value in row.items() if key != "question_type"} | {"options": ["A. x", "B. y"]}
    write_official(tmp_path, "Adaptation/test.jsonl", [row, {**choice, "question_type": "multiple-choice"}])
    for track in ("Perception", "Comprehension"):
        write_official(tmp_path, f"{track}/test.jsonl", [choice])
    samples = official("videommmu", tmp_path)
    assert [sample.rule for sample in samples] == ["letter", "letter", "mmmu-open", "letter"]


def test_another_ending_of_a_video_is_found_after_mp4(tmp_path):
    row = {"videoID": "abc", "question": "Q?", "options": ["A. x", "B. y"], "answer": "A", "duration": "long"}
    write_official(tmp_path, "test.jsonl", [row])
    for name in ("abc.mkv", "abc.MP4", "abc.mp4"):
        (tmp_path / name).touch()
        assert official("videomme", tmp_path)[0].path == str(tmp_path / name)


@pytest.mark.parametrize(
    ("folder", "revision"), [("ssv2_video_mp4", "video"), ("tvqa/frames_fps3_hq", "main"), ("clevrer", None)]
)
def test_a_revision_is_known_by_its_folders(tmp_path, folder, revision):
    (tmp_path / "video" / folder).mkdir(parents=True)
    assert BENCHMARKS["mvbench"].spec("official").revision_of(tmp_path) == revision
