"""What is shown, and what counts as right."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.ablation.evaluation import (
    EvaluationSet,
    ask,
    longest_answer,
    right_answer,
    selected_frames,
    whole_videos,
)
from experiments.ablation.settings import BUDGETS
from marc.inference.selectors import Selection
from marc.training.dataset import completion
from marc.training.reader import VisualReader
from marc.world.frames import WorldFrames, video_of


@pytest.fixture
def reader(teacher) -> VisualReader:
    return VisualReader(teacher.processor, WorldFrames(), keep=8)


@pytest.mark.parametrize("budget", ["full", "events", "frames:1"])
def test_selected_frames_are_those_that_a_reader_gives_at_these_times(teacher, drawn, reader, budget):
    (whole,) = whole_videos(teacher, reader, drawn[:1], BUDGETS[budget])
    selection = Selection(np.array(whole.patches.frame_seconds), whole.patches.events)
    video = selected_frames(teacher.processor, video_of(drawn[0].path), selection, BUDGETS[budget])
    teacher.encode([video])
    assert video.tokens == whole.tokens == {"full": 128}.get(budget, 4)
    assert torch.allclose(video.features, whole.features, atol=1e-5)
    assert (video.events, video.seconds) == (whole.events, whole.seconds)


def test_a_share_of_the_tokens_is_what_was_selected(teacher, drawn):
    selection = Selection(np.array([0.25, 0.75, 3.25, 3.75, 5.25, 5.75]), (0, 1, 1), (1, 2))
    video = selected_frames(teacher.processor, video_of(drawn[0].path), selection, BUDGETS["events"])
    assert video.tokens == 3 and video.shares == (1, 2) and video.patches.grid_thw[0] == 3


def test_questions_of_one_video_share_what_is_shown(teacher, drawn, reader):
    shown = whole_videos(teacher, reader, drawn, BUDGETS["events"])
    assert [id(video) for video in shown] == [id(shown[index // 4 * 4]) for index in range(len(drawn))]
    assert len({id(video) for video in shown}) == 3


def test_answers_are_those_of_questions_asked_alone(student, drawn, reader):
    shown = whole_videos(student, reader, drawn, BUDGETS["events"])
    together = ask(student, drawn, shown)
    alone = [ask(student, [row], [video])[0] for row, video in zip(drawn[:3], shown, strict=False)]
    for said, text in zip(together, alone, strict=False):
        assert said.startswith(text) or text.startswith(said), "alone, an answer may be cut off earlier"
    assert len(set(together)) > 3


def test_an_answer_counts_if_it_is_exactly_right(teacher, drawn, reader):
    shown = whole_videos(teacher, reader, drawn, BUDGETS["full"])
    right = EvaluationSet(drawn, shown).right(teacher)
    assert right.dtype == np.bool_ and right.sum() >= 10
    wrong = [replace(row, solution=f"<answer>{right_answer(row)}x</answer>") for row in drawn]
    assert not EvaluationSet(wrong, shown).right(teacher).any()


def test_the_longest_right_answer_fits(teacher, drawn):
    tokenizer = teacher.processor.tokenizer
    lengths = [len(tokenizer(completion(row, reasoning=True))["input_ids"]) for row in drawn]
    assert longest_answer(teacher.processor, drawn) == max(lengths) + 2
