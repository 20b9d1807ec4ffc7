"""Rows: what they say of cuts, and how the teacher's accuracies are kept."""

import pytest

from experiments.ablation import rows as module
from experiments.ablation.rows import STORIES, draw_rows, questions_about, remembered_cuts, with_teacher
from marc.memory.events import MAX_SECONDS
from marc.rewards import accuracy_reward
from marc.world.export import FileOptions, cuts_in_seconds
from marc.world.frames import video_of
from marc.world.scenes import sample_video


def test_rows_carry_every_cut_and_no_event_is_longer_than_the_memory_allows():
    split = 0
    for index in range(12):
        video = sample_video("easy", "train", 3, index)
        cuts, true = remembered_cuts(video), cuts_in_seconds(video)
        assert set(true) <= set(cuts)
        ends = [*cuts, video.frame_count * FileOptions().seconds_per_frame]
        assert all(end - start <= MAX_SECONDS for start, end in zip([0.0, *cuts], ends, strict=True))
        split += len(cuts) - len(true)
    assert split > 0


def test_rows_are_the_questions_of_their_videos(drawn):
    assert len({row.problem_id for row in drawn}) == len(drawn)
    for index in range(3):
        some = drawn[index * 4 : (index + 1) * 4]
        video = sample_video("easy", "train", 3, index)
        questions = questions_about(video, "train", 3, index, 4)
        assert [row.problem for row in some] == [question.text for question in questions]
        assert {row.path for row in some} == {video.name} and video_of(video.name) == video
        assert {row.cuts for row in some} == {tuple(remembered_cuts(video))}
        assert not {question.kind for question in questions} & set(STORIES)
    assert drawn[:4] == draw_rows("train", 3, videos=1, questions=4)


def test_the_teacher_knows_what_the_micro_world_taught_it(teacher, drawn, rows):
    before = teacher.compression
    assert before.enabled, "the fixture would say nothing"
    best = [accuracy_reward([row.solution], [row.solution], [row.problem_type])[0] for row in drawn]
    assert sum(row.a_full == value for row, value in zip(rows, best, strict=True)) >= 10
    assert teacher.compression == before


def test_the_teacher_is_asked_once(teacher, drawn, tmp_path, monkeypatch):
    first = with_teacher(teacher, drawn[:4], tmp_path, questions=4)

    def refuse(*args, **kwargs):
        raise AssertionError("asked again")

    monkeypatch.setattr(teacher.model, "generate", refuse)
    assert with_teacher(teacher, drawn[:4], tmp_path, questions=4) == first
    with pytest.raises(AssertionError, match="asked again"):
        with_teacher(teacher, drawn, tmp_path, questions=4)
    assert len(drawn) <= module.VIDEOS_AT_ONCE * 4, "all in one batch, so that the last line asks"
