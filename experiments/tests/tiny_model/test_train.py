"""The recipe's loop: exact resumption, moving parameters, readable recipes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.tiny_model.recipe import Phase, TrainSettings
from experiments.tiny_model.train import FEWEST_STEPS, LOSS_FLOOR, Progress, train_world_model

SMALL = TrainSettings(
    layers=3,
    tower_steps=2,
    tower_batch=4,
    variants=1,
    videos=2,
    questions=2,
    warmup=1,
    checkpoint_every=2,
    evaluate_every=100,
    log_every=1,
    phases=(
        Phase(2, {"events": 1.0}, {"plain": 1.0}, stories=0.5),
        Phase(4, {"events": 0.4, "full": 0.4, "pooled-8": 0.2}, {"short": 0.5, "video-r1": 0.5}),
    ),
)


class KilledError(Exception):
    pass


def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, _ = train_world_model(SMALL, tmp_path / "whole", lambda row: None)

    def log(row: dict) -> None:
        if row.get("step") == 5:
            raise KilledError

    with pytest.raises(KilledError):
        train_world_model(SMALL, tmp_path / "killed", log)
    resumed, _ = train_world_model(SMALL, tmp_path / "killed", lambda row: None)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_tower_is_frozen_and_everything_else_moves(tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = train_world_model(replace(SMALL, phases=SMALL.phases[:1]), tmp_path, lambda row: None)[0].state_dict()
    (tmp_path / "language_model.pt").unlink()
    after = train_world_model(SMALL, tmp_path, lambda row: None)[0].state_dict()
    for name, value in before.items():
        assert torch.equal(value, after[name]) == ("visual" in name), name


def test_a_phase_ends_when_it_is_learnt(tmp_path: Path) -> None:
    """Two phases of at most 200 steps: the first asks for an accuracy that is there at once, the second for none."""
    easy = Phase(200, {"events": 1.0}, {"plain": 1.0}, until=1e-9, max_events=1, kinds=("count scenes",), choices=0.0)
    settings = replace(SMALL, phases=(easy, replace(easy, steps=3, until=None)))
    rows: list[dict] = []
    train_world_model(settings, tmp_path, rows.append)
    ends = [row for row in rows if row.get("phase") == 0]
    assert FEWEST_STEPS <= ends[-1]["step"] < 200
    assert rows[-1]["step"] == ends[-1]["step"] + 3


def test_harder_kinds_are_drawn_more_often() -> None:
    progress = Progress()
    for _ in range(50):
        progress.record({"colour": 0.0, "precedes": 0.7}, {"colour": 1.0, "precedes": 0.5})
    weights = progress.weights()
    assert weights["precedes"] == pytest.approx(0.7 + LOSS_FLOOR, abs=0.01)
    assert weights["colour"] == pytest.approx(LOSS_FLOOR, abs=0.01)
