"""The recipe's loop: exact resumption, moving parameters, readable recipes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from marc.world.scenes import sample_video
from marc.world.train import Phase, TrainSettings, make_segments, read_settings, train_world_model

RECIPE = Path(__file__).parents[2] / "configs" / "world_tiny.yaml"
SMALL = TrainSettings(
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
    before = train_world_model(
        TrainSettings(**{**SMALL.__dict__, "phases": SMALL.phases[:1]}), tmp_path, lambda row: None
    )[0].state_dict()
    (tmp_path / "language_model.pt").unlink()
    after = train_world_model(SMALL, tmp_path, lambda row: None)[0].state_dict()
    for name, value in before.items():
        assert torch.equal(value, after[name]) == ("visual" in name), name


def test_the_recipe_reads() -> None:
    settings = read_settings(RECIPE)
    assert settings.steps == sum(phase.steps for phase in settings.phases) > 1000
    assert settings.phase(0).max_events == 1 and settings.phase(settings.steps - 1).max_events == 4
    peak = settings.phase(settings.steps // 3).rate
    assert settings.rate(settings.steps // 3) == peak > settings.rate(settings.steps - 1) > 0


def test_mistakes_in_a_recipe_are_named(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("sede: 1\nphases: []\n", encoding="utf-8")
    with pytest.raises(ValueError, match="sede"):
        read_settings(recipe)
    with pytest.raises(ValueError, match="layouts must sum to 1"):
        Phase(1, {"events": 0.5}, {"plain": 1.0})
    with pytest.raises(ValueError, match="smell"):
        Phase(1, {"events": 1.0}, {"plain": 1.0}, kinds=("smell",))


def test_segments_keep_the_cuts() -> None:
    rng = np.random.default_rng(0)
    for index in range(50):
        video = sample_video("easy", "train", 0, index)
        lengths = make_segments(video, rng, 4)
        assert len(lengths) == 4 and sum(lengths) == 32 and min(lengths) >= 1
        cuts = set(np.cumsum([event.grids for event in video.events]))
        assert cuts <= set(np.cumsum(lengths))
