"""T-GRPO's temporal reward in the trainer: what is asked about the shuffled video, and what it does to rewards."""

import math

import pytest
import torch
from tiny_training import GROUP, OPTIONS, make_trainer, varied

from marc.inference.video_input import inputs_at, shuffled_grids
from marc.model.tiny import build_tiny
from marc.rewards import accuracy_reward
from marc.training import CGRPOConfig, CGRPOTrainer, to_dataset
from marc.training.inputs import visual_sources

G = 4


@pytest.fixture
def trainer(files, mixed_rows, tmp_path) -> CGRPOTrainer:
    options = {"num_generations": G, "per_device_train_batch_size": 3 * G, "temporal_alpha": 0.3}
    trainer = make_trainer(files, mixed_rows, tmp_path, freeze_tower=True, **options)
    trainer.model.train()
    return trainer


def batch(trainer, *rows: int) -> list[dict]:
    return [trainer.train_dataset[row] for row in rows for _ in range(G)]


def graded(trainer, monkeypatch, ordered: dict[str, list[float]], shuffled: dict[str, list[float]]) -> list:
    """Accuracies by what was asked about: those of ordered videos are a reward's, the others are graded apart."""
    asked, single = [], trainer._generate_single_turn

    def generate(*args):
        asked.append((trainer._row_visuals, list(trainer._row_prompts)))
        return single(*args)

    monkeypatch.setattr(trainer, "_generate_single_turn", generate)
    given = [value for name in ("10", "13") for value in shuffled[name]]
    monkeypatch.setattr("marc.training.grpo.accuracy_reward", lambda texts, *gold: given[: len(texts)])
    trainer.reward_funcs[0] = lambda problem_id, **columns: [
        ordered[name][index % G] for index, name in enumerate(problem_id)
    ]
    trainer.reward_funcs[1] = lambda completions, **columns: [0.0] * len(completions)
    return asked


def test_right_answers_are_paid_where_the_order_helps(trainer, monkeypatch):
    """Rows: a video of which the order helps, an image, a video of which it does not."""
    ordered = {"10": [1, 0, 0, 0.05], "11": [1, 0, 0, 0], "13": [1, 1, 0, 0.2]}
    asked = graded(trainer, monkeypatch, ordered, {"10": [0.2, 0.4], "13": [1.0, 1.0]})
    rewards = {}
    calculate = trainer._calculate_rewards
    monkeypatch.setattr(trainer, "_calculate_rewards", lambda *args: rewards.setdefault("NF", calculate(*args)))
    output = trainer._generate_and_score_completions(batch(trainer, 0, 1, 3))
    names = [function.__name__ for function in trainer.reward_funcs]
    assert names[2:] == ["temporal", "retention"]
    column = rewards["NF"][:, 2].tolist()
    assert column[:G] == pytest.approx([0.3, 0, 0, 0]), "0.2625 reaches 0.8 of 0.3; 0.05 is not right"
    assert all(math.isnan(value) for value in column[G : 2 * G]) and column[2 * G :] == [0.0] * G
    (ordered_rows, _), (shuffled_rows, prompts) = asked
    assert len(ordered_rows) == 3 * G and len(shuffled_rows) == len(prompts) == 2 * (G // 2)
    assert [len(row) for row in output["visuals"]] == [1] * 3 * G and trainer._row_visuals is ordered_rows
    for row, seen in ((0, shuffled_rows[0][0]), (2 * G, shuffled_rows[-1][0])):
        own = ordered_rows[row][0]
        assert seen.tokens == own.tokens and seen.seconds == own.seconds and seen.events == own.events
        assert not torch.equal(seen.features, own.features)
    assert trainer._metrics["train"]["temporal/shuffled_accuracy"] == [pytest.approx((0.3 + 1.0) / 2)]


def test_nothing_is_asked_without_a_video_or_in_evaluation(trainer, monkeypatch):
    asked = graded(trainer, monkeypatch, {"11": [1, 0, 0, 0], "12": [0] * G, "10": [0] * G}, {"10": [], "13": []})
    trainer._generate_and_score_completions(batch(trainer, 1, 2))
    trainer.model.eval()
    trainer._generate_and_score_completions(batch(trainer, 0)[: trainer.num_generations_eval])
    assert len(asked) == 2


@pytest.mark.parametrize("known", [False, True], ids=["pixels", "features"])
def test_grids_are_shuffled_whole(trainer, known):
    own = trainer._reader.read(visual_sources(trainer.train_dataset[0]["prompt"])[0])
    if known:
        trainer._draw_budget()
        trainer._encoded(trainer.model, inputs_at([[own]], trainer._reader.processor, trainer._budget))
    shuffled = shuffled_grids(own, "a draw")
    assert shuffled_grids(own, "a draw").frame_seconds == shuffled.frame_seconds == own.frame_seconds
    assert (shuffled.pixels is None) == (own.pixels is None) and (shuffled.tower is None) == (own.tower is None)
    kept = "tower" if known else "pixels"
    before, after = (getattr(each, kept).unflatten(0, (own.grid_thw[0], -1)) for each in (own, shuffled))
    order = [next(i for i, grid in enumerate(before) if torch.equal(grid, one)) for one in after]
    assert sorted(order) == list(range(own.grid_thw[0])) != order


def test_two_steps_with_a_trained_tower(files, mixed_rows, tmp_path):
    trainer = make_trainer(files, mixed_rows, tmp_path, temporal_alpha=0.3, dynamic_sampling=1)
    trainer.train()
    steps = [row for row in trainer.state.log_history if "loss" in row]
    assert len(steps) == 2 and all(math.isfinite(row["loss"]) for row in steps)
    assert any("temporal/shuffled_accuracy" in row for row in steps)


def test_it_needs_the_accuracy_and_whole_groups(files, mixed_rows, tmp_path):
    model, processor = build_tiny()
    config = CGRPOConfig(str(tmp_path), **{**OPTIONS, "temporal_alpha": 0.3, "alpha": 0.0})
    data = to_dataset(mixed_rows, files, style="plain")
    with pytest.raises(ValueError, match=r"temporal_alpha needs marc\.rewards\.accuracy_reward"):
        CGRPOTrainer(model, [varied], config, data, processing_class=processor)
    config.per_device_train_batch_size = GROUP + 1  # as where several processes share a group
    with pytest.raises(ValueError, match="temporal_alpha needs whole groups"):
        config._check_whole_groups()
    weights = CGRPOConfig(str(tmp_path), **{**OPTIONS, "temporal_alpha": 0.3, "reward_weights": [2.0, 0.5]})
    trainer = CGRPOTrainer(model, [accuracy_reward, varied], weights, data, processing_class=processor)
    assert trainer.args.reward_weights == [2.0, 0.5, 1.0, 1.0]
