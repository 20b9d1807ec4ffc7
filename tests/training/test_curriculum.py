"""A curriculum by the teacher's margin: its numbers by hand, and what a trainer draws by it."""

import json
import math

import pytest
import torch
from tiny_training import GROUP, OPTIONS, make_trainer, varied

from marc.model.tiny import build_tiny
from marc.rewards import accuracy_reward
from marc.training import CGRPOConfig, CGRPOTrainer, to_dataset
from marc.training.curriculum import MarginCurriculum
from marc.training.inputs import visual_sources
from marc.training.reader import VisualReader


def test_margins_by_hand():
    """Before anything is known a margin is the teacher's accuracy; then the student's takes from it."""
    curriculum = MarginCurriculum([1.0, 0.5, 0.0, None], share=0.8, seed=0)
    assert curriculum.margins().tolist() == [1.0, 0.5, 0.0, 0.5], "who has no teacher counts as the average"
    assert curriculum.probabilities().tolist() == pytest.approx([0.05 + 0.8 * m / 2 for m in (1.0, 0.5, 0.0, 0.5)])
    curriculum.learn([0, 0, 1, 1], [0.0, 0.4, 1.0, 0.5])
    known = (0.2 + 0.75) / 2
    assert curriculum.margins().tolist() == pytest.approx([0.8, 0.0, 0.0, 0.8 / 3])
    assert curriculum.seen == 0.5
    curriculum.learn([0, 0, 3, 3, 2, 2], [1.0, 1.0, 0.5, 0.5, math.nan, math.nan])
    assert curriculum.margins().tolist() == pytest.approx([0.0, 0.0, 0.0, 0.0]), "what cannot be read has none"
    assert curriculum.probabilities().tolist() == [0.25] * 4
    unseen = MarginCurriculum([1.0, 1.0, 1.0], share=0.8, seed=0)
    unseen.learn([0, 1], [0.2, 0.75])
    assert unseen.margins()[2] == pytest.approx(1 - known), "the mean of those that came up"


def test_what_comes_up_follows_the_probabilities():
    curriculum = MarginCurriculum([1.0, 0.5, 0.0, None], share=0.8, seed=0)
    counts = [0] * 4
    for draw in range(4000):
        counts[curriculum.draw(1, draw)[0]] += 1
    assert [count / 4000 for count in counts] == pytest.approx(curriculum.probabilities().tolist(), abs=0.03)
    assert sorted(curriculum.draw(4, 0)) == [0, 1, 2, 3] and len(curriculum.draw(9, 0)) == 9


def test_a_draw_follows_from_seed_generation_and_what_is_known():
    one, other = (MarginCurriculum([0.5] * 50, share=0.5, seed=3) for _ in range(2))
    assert one.upcoming(6) == other.upcoming(6) != MarginCurriculum([0.5] * 50, share=0.5, seed=4).upcoming(6)
    first = one.upcoming(6)
    one.begin()
    one.learn(first, [1.0] * 6)
    assert one.upcoming(6) != first
    other.restore(json.loads(json.dumps(one.state())))
    assert other.upcoming(6) == one.upcoming(6) and other.state() == one.state()
    with pytest.raises(ValueError, match="of 50 rows, the data set has 3"):
        MarginCurriculum([0.5] * 3, share=0.5, seed=3).restore(one.state())
    with pytest.raises(ValueError, match="which no row has"):
        MarginCurriculum([None, None], share=0.5, seed=3)


def right_only(trainer, names: set[str]) -> list[list[str]]:
    """Has the answers to some prompts be right and all others wrong; returns what was asked, draw by draw."""
    asked = []

    def reward(completions, problem_id, **columns):
        asked.append(problem_id[::GROUP])
        return [float(name in names) for name in problem_id]

    trainer.reward_funcs[0] = reward
    return asked


@pytest.mark.parametrize("dynamic", [0, 2])
def test_a_trainer_asks_where_the_student_is_behind(dynamic, files, mixed_rows, tmp_path):
    """Videos 10 and 13 have a teacher who knows half; the student knows 10, which is asked no more than needed."""
    options = {"curriculum": 0.999, "dynamic_sampling": dynamic, "max_steps": 8, "per_device_train_batch_size": GROUP}
    trainer = make_trainer(files, mixed_rows, tmp_path, freeze_tower=True, **options)
    asked = right_only(trainer, {"10"})
    trainer.train()
    numbers = {str(row["problem_id"]): number for number, row in enumerate(trainer.train_dataset)}
    seen = {name for draw in asked for name in draw}
    assert trainer._curriculum.state()["student"] == {str(numbers[name]): float(name == "10") for name in seen}
    assert trainer._curriculum.margins()[numbers["13"]] == 0.5 and {"10", "13"} <= seen
    assert sum("10" in draw for draw in asked) == 1
    logged = [row["curriculum/seen"] for row in trainer.state.log_history if "curriculum/seen" in row]
    assert logged == sorted(logged) and logged[-1] == len(seen) / 4


def test_the_coming_videos_are_read_ahead_and_asked(files, mixed_rows, tmp_path, monkeypatch):
    trainer = make_trainer(files, mixed_rows, tmp_path, freeze_tower=True, curriculum=0.5, max_steps=4)
    asked, announced = right_only(trainer, {"11"}), []
    monkeypatch.setattr(VisualReader, "read_ahead", lambda self, sources: announced.append(set(sources)))
    trainer.train()
    shown = {str(row["problem_id"]): set(visual_sources(row["prompt"])) for row in trainer.train_dataset}
    assert len(announced) == len(asked) == 4
    assert announced[:3] == [set().union(*(shown[name] for name in names)) for names in asked[1:]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curriculum": 1.0}, "curriculum must be at least 0 and below 1"),
        ({"curriculum": -0.1}, "curriculum must be at least 0 and below 1"),
        ({"curriculum": 0.5, "teacher": "online"}, "curriculum needs every a_full beforehand"),
        ({"curriculum": 0.5, "reward_coef": 0.0, "distill_coef": 1.0}, "curriculum looks at rewards"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        CGRPOConfig(str(tmp_path), use_cpu=True, bf16=False, **options)


def test_data_that_do_not_fit_are_refused(files, mixed_rows, tmp_path):
    model, processor = build_tiny()
    config = CGRPOConfig(str(tmp_path), **{**OPTIONS, "curriculum": 0.5, "alpha": 0.0})
    data = to_dataset(mixed_rows, files, style="plain")
    with pytest.raises(ValueError, match=r"curriculum needs marc\.rewards\.accuracy_reward"):
        CGRPOTrainer(model, [varied], config, data, processing_class=processor)
    with pytest.raises(ValueError, match="curriculum needs a data set with a column 'a_full'"):
        CGRPOTrainer(model, [accuracy_reward], config, data.remove_columns("a_full"), processing_class=processor)


def test_a_resumed_run_draws_what_the_uninterrupted_one_did(files, rows, mixed_rows, tmp_path):
    """The checkpoint knows how prompts were answered; without its file the run is refused."""
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "bf16": False, "curriculum": 0.9}
    data, asked = [*rows, *mixed_rows], []
    trainers = [make_trainer(files, data, tmp_path / name, **options) for name in ("whole", "resumed")]
    for trainer in trainers:
        asked.append(right_only(trainer, {"0", "10"}))
    trainers[0].train()
    checkpoint = tmp_path / "whole" / "run" / "checkpoint-3"
    trainers[1].train(resume_from_checkpoint=str(checkpoint))
    assert asked[0][3:] == asked[1] and len(asked[1]) == 3
    for ours, theirs in zip(*(trainer.model.parameters() for trainer in trainers), strict=True):
        assert torch.equal(ours, theirs)
    assert trainers[0]._curriculum.state() == trainers[1]._curriculum.state()
    (checkpoint / "curriculum.json").unlink()
    with pytest.raises(ValueError, match=r"curriculum: .*checkpoint-3 is of a run without it"):
        make_trainer(files, data, tmp_path / "other", **options).train(resume_from_checkpoint=str(checkpoint))
