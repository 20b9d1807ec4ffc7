import dataclasses

import pytest

from marc.model import CompressionConfig
from marc.model.tiny import build_tiny
from marc.training import teacher
from marc.training.teacher import TeacherCache, TeacherOptions, answers, result_key, teacher_accuracies
from marc.training.visual_reader import VisualReader
from marc.video.sources import VideoFiles

OPTIONS = TeacherOptions(samples=3, max_new_tokens=4)


@pytest.fixture(scope="module")
def full():
    model, processor = build_tiny(compression=CompressionConfig(target_frames=None))
    return model, processor, VisualReader(processor, VideoFiles(max_frames=8))


def test_only_new_results_are_computed(full, files, rows, mixed_rows, tmp_path, monkeypatch):
    asked = []

    def scripted(row, *rest):
        asked.append(row.problem_id)
        return ["<answer>seven</answer>", "<answer>seven</answer>", "nothing"]

    monkeypatch.setattr(teacher, "answers", scripted)
    dataset = [dataclasses.replace(row, problem_type="OCR") for row in (*rows, mixed_rows[1])]

    def run(options=OPTIONS, shard=(0, 1)):
        cache = TeacherCache(tmp_path, shard[0])
        return list(teacher_accuracies(dataset, files, *full, options, cache, fingerprint="m", shard=shard))

    result = [*run(shard=(0, 2)), *run(shard=(1, 2))]
    assert [row.a_full for row in result] == [pytest.approx(2 / 3), None, pytest.approx(2 / 3)]
    assert sorted(asked) == ["0", "1"]
    with (tmp_path / "teacher-0.jsonl").open("a") as file:
        file.write('{"key": "half a li')
    run()
    assert len(asked) == 2
    run(dataclasses.replace(OPTIONS, seed=1))
    assert len(asked) == 4


def test_the_key_knows_everything_that_a_result_follows_from(full, files, rows):
    row, reader = rows[0], full[2]
    keys = {
        result_key(row, files, "m", reader, OPTIONS),
        result_key(row, files, "other", reader, OPTIONS),
        result_key(row, files, "m", dataclasses.replace(reader, frames=VideoFiles(max_frames=4)), OPTIONS),
        result_key(row, files, "m", reader, dataclasses.replace(OPTIONS, temperature=0.5)),
        result_key(dataclasses.replace(row, problem="Why?"), files, "m", reader, OPTIONS),
        result_key(dataclasses.replace(row, path="2.mp4"), files, "m", reader, OPTIONS),
    }
    assert len(keys) == 6


def test_the_teacher_answers_with_all_tokens(full, files, rows):
    first = answers(rows[0], files, *full, OPTIONS)
    assert len(first) == 3
    assert answers(rows[0], files, *full, OPTIONS) == first


def test_a_compressed_teacher_is_refused(full, files, rows, tmp_path):
    model, processor = build_tiny()
    results = teacher_accuracies(
        rows, files, model, processor, full[2], OPTIONS, TeacherCache(tmp_path), fingerprint="m"
    )
    with pytest.raises(ValueError, match="target_frames=None"):
        next(results)
