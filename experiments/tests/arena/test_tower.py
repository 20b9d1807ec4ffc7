"""The labels of crowded grids are true, and the tower's training goes on where it was."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.arena.tower import (
    HEADS,
    UNKNOWN,
    CellHeads,
    CellWords,
    TowerStage,
    TowerTraining,
    cell_labels,
    crowded_grid,
    draw_grids,
    frames_to_patches,
    sure_cells,
)
from experiments.tiny_model.tower import colours_of
from marc.model.processing import frame_patches
from marc.model.tiny import build_processor, build_tiny
from marc.world.arena.scenes import Mark


def test_labels_say_what_is_in_each_cell() -> None:
    rng = np.random.default_rng(0)
    heads = list(HEADS)
    for _ in range(10):
        video = crowded_grid(rng, 4, 8)
        labels, event = cell_labels(video), video.events[0]
        assert labels.shape == (32, len(HEADS))
        assert (labels[:, 0] == labels[0, 0]).all() and HEADS["tint"][labels[0, 0]] == event.tint
        for mark in event.marks:
            cell = labels[8 * mark.row + mark.column]
            assert HEADS["thing"][cell[heads.index("thing")]] == mark.kind
            if mark.kind == "sign":
                code = HEADS["letter"][cell[heads.index("letter")]] + HEADS["digit"][cell[heads.index("digit")]]
                assert code == mark.value
            elif mark.kind in ("star", "button"):
                assert HEADS["colour"][cell[heads.index("colour")]] == mark.value
        held = {(s.row, s.column): s.thing for s in video.sightings(0)}
        for place, cell in enumerate(labels):
            if cell[heads.index("thing")] == 0:
                assert divmod(place, 8) not in held
            if not isinstance(held.get(divmod(place, 8)), Mark):
                assert cell[heads.index("letter")] == UNKNOWN


def test_patches_are_the_processors() -> None:
    processor = build_processor(max_pixels=112 * 224)
    grids = draw_grids(np.random.default_rng(1), 384)
    rgb = (grids.frames[0] * 255).round().to(torch.uint8)
    wanted, _ = frame_patches(processor.video_processor, rgb.numpy())
    ours = frames_to_patches(rgb[None].float() / 255, colours_of(processor))[0]
    assert torch.allclose(ours, wanted, atol=1e-5)


class KilledError(Exception):
    pass


def trained(kills: list[int], file: Path) -> dict[str, torch.Tensor]:
    """A tower's weights after four steps, killed after some of them."""
    for last in [*kills, 4]:
        model, processor = build_tiny()
        tower = model.model.visual
        torch.manual_seed(0)
        reader = CellHeads(128)
        training = TowerTraining(tower, colours_of(processor), reader, TowerStage(steps=4, cells=64), file)

        def log(row: dict[str, float], last: int = last) -> None:
            if row["step"] > last:
                raise KilledError

        with nullcontext() if last == 4 else pytest.raises(KilledError):
            training.run(log, every=1)
    weights: dict[str, torch.Tensor] = tower.state_dict()
    return weights


def test_training_goes_on_where_it_was(tmp_path: Path) -> None:
    once, twice = trained([], tmp_path / "once.pt"), trained([2], tmp_path / "twice.pt")
    for name, weight in once.items():
        assert torch.equal(weight, twice[name]), name


def test_unknown_answers_are_not_learnt() -> None:
    labels = draw_grids(np.random.default_rng(2), 384).labels
    things = labels[..., list(HEADS).index("thing")]
    assert (things == UNKNOWN).any() and (things == 0).any()
    assert labels.max(0).values.max() < max(map(len, HEADS.values())) and labels.min() == UNKNOWN
    assert pytest.approx(1.0) == (labels[..., :3] >= 0).float().mean().item()


def test_words_of_a_cell_are_summed() -> None:
    torch.manual_seed(0)
    vectors = {name: torch.randn(len(answers), 512) for name, answers in HEADS.items()}
    vectors["light"][:] = 0
    words = CellWords(vectors)
    labels = draw_grids(np.random.default_rng(3), 384).labels
    targets = words.targets(labels)
    for grid, cell in ((0, 0), (1, 5), (2, 7)):
        said = [vectors[name][answer] for name, answer in zip(HEADS, labels[grid, cell], strict=True) if answer >= 0]
        assert torch.allclose(targets[grid, cell], torch.stack(said).sum(0), atol=1e-5)
    loss, accuracies = words(targets, labels)
    assert loss < 1e-6 and accuracies["letter"] > 0.9 and accuracies["tint"] > 0.9
    nothing, _ = words(targets[sure_cells(labels)].mean(0).expand_as(targets), labels)
    assert nothing == pytest.approx(1.0, abs=0.01)
