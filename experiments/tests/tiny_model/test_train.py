"""The recipe's loop: exact resumption, moving parameters, readable recipes."""

from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
import torch

from experiments.tiny_model import train
from experiments.tiny_model.bank import FeatureBank
from experiments.tiny_model.batches import World
from experiments.tiny_model.initialisation import build_world_model
from experiments.tiny_model.recipe import Phase, TrainSettings
from experiments.tiny_model.train import (
    FEWEST_STEPS,
    LOSS_FLOOR,
    LanguageModelTraining,
    Progress,
    save_model,
    train_world_model,
)
from marc.model.loading import load_model
from marc.world.measure import measure
from marc.world.options import WorldOptions

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


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose tower is trained and whose bank is built."""
    folder = tmp_path_factory.mktemp("prepared")
    train_world_model(replace(SMALL, phases=()), folder, lambda row: None)
    return folder


@pytest.fixture
def run(prepared: Path, tmp_path: Path) -> Path:
    """The same, to go on from."""
    return copytree(prepared, tmp_path / "run")


def test_a_killed_run_ends_with_the_same_weights(run: Path, tmp_path: Path) -> None:
    whole, _ = train_world_model(SMALL, tmp_path / "whole", lambda row: None)

    def log(row: dict) -> None:
        if row.get("step") == 5:
            raise KilledError

    with pytest.raises(KilledError):
        train_world_model(SMALL, run, log)
    resumed, _ = train_world_model(SMALL, run, lambda row: None)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_run_killed_while_a_phase_ends_still_keeps_its_model(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saving = replace(SMALL, phases=(replace(SMALL.phases[0], save="early"), SMALL.phases[1]))

    def killed(*_: object) -> None:
        raise KilledError

    monkeypatch.setattr(train, "save_model", killed)
    with pytest.raises(KilledError):
        train_world_model(saving, run, lambda row: None)
    monkeypatch.setattr(train, "save_model", save_model)
    train_world_model(saving, run, lambda row: None)
    assert (run / "early" / "model.safetensors").exists()


def test_losses_are_those_of_all_versions_before() -> None:
    """A bank of random numbers, so that nothing of the tower counts."""
    bank = FeatureBank(torch.randn(768, 2, 8, 4, 128, generator=torch.Generator().manual_seed(0)))
    model, processor = build_world_model(SMALL)
    rows: list[dict] = []
    assert list(LanguageModelTraining(model, processor, World(bank, 0, 2, 2), SMALL).run(rows.append))[1::4] == [
        *SMALL.phases
    ]
    expected = [7.398, 6.5199, 4.8818, 7.1193, 4.0756, 6.2655]
    assert [row["loss"] for row in rows] == pytest.approx(expected, abs=0.01)


def test_the_tower_is_frozen_and_everything_else_moves(run: Path) -> None:
    torch.manual_seed(0)
    before = train_world_model(replace(SMALL, phases=SMALL.phases[:1]), run, lambda row: None)[0].state_dict()
    (run / "language_model.pt").unlink()
    after = train_world_model(SMALL, run, lambda row: None)[0].state_dict()
    for name, value in before.items():
        assert torch.equal(value, after[name]) == ("visual" in name), name


def test_a_model_of_another_family_is_trained_saved_and_asked(tmp_path: Path) -> None:
    """Through its own code path: streams of DeepStack, times in the prompt, the engine."""
    settings = replace(SMALL, family="qwen3_vl", start_from="tiny", layers=4, phases=SMALL.phases[1:])
    trained, processor = train_world_model(settings, tmp_path / "run", lambda row: None)
    save_model(trained, processor, tmp_path / "model")
    model, processor = load_model(str(tmp_path / "model"))
    assert model.family.name == "qwen3_vl" and torch.equal(model.lm_head.weight, trained.lm_head.weight)
    world = WorldOptions(videos=1, questions=2)
    for layout in ("full", "events"):
        assert len(measure(model, processor, world, layout=layout)) == 2


def test_a_phase_ends_when_it_is_learnt(run: Path) -> None:
    """Two phases of at most 200 steps: the first asks for an accuracy that is there at once, the second for none."""
    easy = Phase(200, {"events": 1.0}, {"plain": 1.0}, until=1e-9, max_events=1, kinds=("count scenes",), choices=0.0)
    settings = replace(SMALL, phases=(easy, replace(easy, steps=3, until=None)))
    rows: list[dict] = []
    train_world_model(settings, run, rows.append)
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
